"""One writer at a time in a folder, also between processes; a killed process lets go by itself."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from .files import remove_partials

LOCK_NAME = ".wuerstchen.lock"
WINDOWS_POLL_S = 0.05  # Windows itself waits no longer than ten seconds


class FolderInUse(Exception):
    """Another process holds the folder."""


@contextmanager
def folder_lock(folder: Path, wait: bool = True) -> Iterator[None]:
    """Raises FolderInUse when another process holds the folder and `wait` is off."""
    with (folder / LOCK_NAME).open("ab") as file:
        try:
            _lock(file, wait)
        except (BlockingIOError, PermissionError) as error:
            raise FolderInUse(folder) from error
        yield  # closing the file lets go


def _lock(file: BinaryIO, wait: bool) -> None:
    if sys.platform == "win32":
        import msvcrt

        while True:
            file.seek(0)
            try:
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
                return
            except OSError:
                if not wait:
                    raise BlockingIOError from None
                time.sleep(WINDOWS_POLL_S)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def clean_output(folder: Path) -> None:
    """Removes what killed runs left half-written in the folder and below it.

    Files are written under the lock, so nothing of a run that is still alive is removed.
    """
    for lock in [folder / LOCK_NAME, *folder.glob(f"**/*/{LOCK_NAME}")]:
        if lock.is_file():
            with folder_lock(lock.parent):
                remove_partials(lock.parent)
