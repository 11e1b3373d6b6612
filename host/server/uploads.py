"""Uploads: a form with one file, and keeping that file under a free name."""

from __future__ import annotations

import asyncio
import filecmp
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, NoReturn

from aiohttp import BodyPartReader, web

from ...wuerstchen_core.files import write_atomically
from ...wuerstchen_core.folder_lock import folder_lock
from .answers import refuse
from .features import MAX_UPLOAD_BYTES
from .paths import writing_there

MAX_PARTS = 16
MAX_FIELD_BYTES = 1 << 16

NO_FORM = "The request is not a whole form with a file."


@dataclass(frozen=True)
class Upload:
    """A form: its file, in a temporary folder of its own, and its other fields as text."""

    path: Path
    filename: str
    fields: dict[str, str]


@asynccontextmanager
async def receive_upload(request: web.Request, name: str) -> AsyncIterator[Upload]:
    """The form whose field `name` is a file. The temporary folder is gone at the end.

    Raises Refusal: 413 for a file above MAX_UPLOAD_BYTES, 400 for what is no such form.
    """
    if (request.content_length or 0) > MAX_UPLOAD_BYTES + MAX_PARTS * MAX_FIELD_BYTES:
        _refuse_size()
    if not request.content_type.startswith("multipart/"):
        refuse(400, NO_FORM)
    with TemporaryDirectory(prefix="wuerstchen-") as folder:
        path = Path(folder) / "upload"
        try:
            with path.open("wb") as file:
                filename, fields = await _read_form(request, name, file)
        except (ValueError, AssertionError):  # what aiohttp says to a broken form
            refuse(400, NO_FORM)
        if not filename:
            refuse(400, f"The form has no file '{name}'.")
        yield Upload(path, filename, fields)


async def _read_form(
    request: web.Request, name: str, file: IO[bytes]
) -> tuple[str | None, dict[str, str]]:
    filename: str | None = None
    fields: dict[str, str] = {}
    parts = 0
    form = await request.multipart()
    while (part := await form.next()) is not None:
        parts += 1
        if parts > MAX_PARTS or not isinstance(part, BodyPartReader):
            refuse(400, f"A form has at most {MAX_PARTS} plain fields.")
        if part.name == name and filename is None:
            filename = part.filename
            await _copy(part, file)
        elif part.name is not None:
            fields[part.name] = await _text(part)
    return filename, fields


async def _copy(part: BodyPartReader, file: IO[bytes]) -> None:
    size = 0
    while chunk := await part.read_chunk(1 << 16):
        size += len(chunk)
        if size > MAX_UPLOAD_BYTES:
            _refuse_size()
        await asyncio.to_thread(file.write, chunk)


async def _text(part: BodyPartReader) -> str:
    text = bytearray()
    while chunk := await part.read_chunk(1 << 13):
        text += chunk
        if len(text) > MAX_FIELD_BYTES:
            refuse(413, f"A field of a form is at most {MAX_FIELD_BYTES >> 10} kB.")
    return text.decode()


def _refuse_size() -> NoReturn:
    refuse(413, f"The file is larger than {MAX_UPLOAD_BYTES >> 20} MB.")


def keep(source: Path, target: Path, overwrite: bool) -> Path:
    """Copies `source` to `target`; unless `overwrite` is on, to `target (1)` … when another file
    has that name already. Returns where it, or a file equal to it, lies."""
    with writing_there():
        target.parent.mkdir(parents=True, exist_ok=True)
        with folder_lock(target.parent):
            free, number = target, 0
            while not overwrite and free.exists():
                if free.is_file() and filecmp.cmp(source, free, shallow=False):
                    return free
                number += 1
                free = target.with_name(f"{target.stem} ({number}){target.suffix}")
            with write_atomically(free) as partial:
                shutil.copyfile(source, partial)
    return free
