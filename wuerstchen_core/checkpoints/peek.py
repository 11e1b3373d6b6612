"""What a file of weights is, from a few reads: quick enough to sort out a folder of many."""

import json
import re
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

from .detect import Kind, detect
from .read import WRAPPERS

_LARGEST_HEADER = 1 << 26  # bytes; what promises more is no file of weights of ours
# How torch's zip archives hold a short string: BINUNICODE, its length as a 4-byte number, itself.
_PICKLED_NAME = re.compile(rb"X[\x01-\xff]\x00\x00\x00([\w.]+)")


def peek(path: Path) -> Kind:
    """The kind of weights, from the names of tensors alone; UNKNOWN for what cannot be read."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
            if start[8:] == b"{":
                size = min(int.from_bytes(start[:8], "little"), _LARGEST_HEADER)
                names: Iterable[str] = json.loads(b"{" + file.read(size - 1))
            elif start.startswith(b"PK"):
                names = _pickled_names(path)
            else:
                return Kind.UNKNOWN
    except (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error):
        # Cut off, damaged, encrypted …: the folder is full of other people's files.
        return Kind.UNKNOWN
    return detect(_bare(name) for name in names)


def _pickled_names(path: Path) -> list[str]:
    """Strings in the pickle of a torch archive, which is looked through and not run."""
    with zipfile.ZipFile(path) as archive:
        inner = next((n for n in archive.namelist() if n.endswith("/data.pkl")), None)
        if inner is None or archive.getinfo(inner).file_size > _LARGEST_HEADER:
            return []
        return [found.decode("ascii") for found in _PICKLED_NAME.findall(archive.read(inner))]


def _bare(name: str) -> str:
    for prefix in WRAPPERS:
        name = name.removeprefix(prefix)
    return name
