"""Names that arrive over the network, held inside their folder."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath

from ...wuerstchen_core.files import PARTIAL_PREFIX
from ...wuerstchen_core.folder_lock import LOCK_NAME
from .answers import refuse

# Bytes that no name needs, and that would end a header's line or a path.
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
LEADS_OUT = "This name leads out of its folder."
# A folder where a file should be or the other way round, a name too long or with odd characters.
UNWRITABLE = (errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EINVAL)
# Not the path of a URL, and not a fraction like 1/2/3.
ABSOLUTE_PATH = re.compile(
    r"(?<![\w.:/\\~])(?:[A-Za-z]:)?[/\\](?:[^\s/\\'\"]+[/\\])+(?P<last>[^\s/\\'\"]*)"
)


def inside(folder: Path, *parts: str) -> Path:
    """`folder/parts…`, also through symbolic links inside `folder`; the file need not exist.

    Raises Refusal 403 for what leads out (`..`, an absolute path, a drive, a link) and for names
    that nothing here has (control characters, the host's own lock and half-written files).
    """
    pieces = [piece for part in parts for piece in _pieces(part)]
    if any(map(_is_absolute, parts)) or any(map(_is_unfit, pieces)):
        refuse(403, LEADS_OUT)
    try:
        root = folder.resolve()
        path = root.joinpath(*pieces).resolve()
        path.exists()
    except (OSError, ValueError, RuntimeError):  # too long, not Unicode, a loop of links
        refuse(403, LEADS_OUT)
    if not path.is_relative_to(root):
        refuse(403, LEADS_OUT)
    return path


def file_inside(folder: Path, *parts: str) -> Path:
    """Like `inside`, for a file: Refusal 400 when the name is that of the folder itself."""
    path = inside(folder, *parts)
    if path == folder.resolve():
        refuse(400, "Name a file.")
    return path


@contextmanager
def writing_there() -> Iterator[None]:
    """Raises Refusal 400 when a name turns out to be one that no file can have there."""
    try:
        yield
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        refuse(400, "A file cannot have this name here; choose another.")


def is_hidden(*parts: str) -> bool:
    """Whether a name has a part that starts with a dot, like `.git/x`."""
    pieces = (piece for part in parts for piece in _pieces(part))
    return any(piece.startswith(".") and piece not in (".", "..") for piece in pieces)


def without_places(text: str) -> str:
    """`text` with each absolute path cut to its last part: a node's error may tell where on this
    machine a file lies."""
    return ABSOLUTE_PATH.sub(lambda found: found["last"], text)


def _pieces(part: str) -> list[str]:
    return part.replace("\\", "/").split("/")


def _is_absolute(part: str) -> bool:
    """On any system: `/x`, `C:x` and `\\\\server\\x` too."""
    path = PureWindowsPath(part)
    return bool(path.drive or path.root)


def _is_unfit(piece: str) -> bool:
    is_own = piece == LOCK_NAME or piece.startswith(PARTIAL_PREFIX)
    return is_own or CONTROL.search(piece) is not None
