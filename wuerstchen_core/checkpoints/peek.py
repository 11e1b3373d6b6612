"""What a file of weights is, from a few reads: quick enough to sort out a folder of many."""

import json
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from .detect import Kind, detect
from .read import CONTAINERS, TORCH_LEGACY, WRAPPERS
from .towers import places_of_towers

_LARGEST_HEADER = 1 << 26  # bytes; what promises more is no file of weights of ours
_LEGACY_PICKLES = 1 << 22  # bytes; names and shapes of some thousand tensors take less
# How torch's pickles hold a short string: BINUNICODE, its length as a 4-byte number, itself.
_PICKLED_STRING = re.compile(rb"X([\x01-\xff])\x00\x00\x00", re.DOTALL)
_NAME = re.compile(rb"[\w.]+")
# Layers of CLIP-H, the shallower of the two text encoders that Würstchen reads; CLIP-L has 12.
_TEXT_LAYERS = 24


def peek(path: Path) -> Kind:
    """The kind of weights, from the names of tensors alone; UNKNOWN for what cannot be read."""
    kinds = (detect(names) for names in names_in(path))
    return next((kind for kind in kinds if kind is not Kind.UNKNOWN), Kind.UNKNOWN)


def offers(path: Path) -> frozenset[Kind]:
    """All that a file can be loaded as: one may hold several networks.

    As a text encoder only what a stage of Würstchen can read, or what has a config.json beside it.
    """
    states = list(names_in(path))
    kinds = {detect(names) for names in states} - {Kind.UNKNOWN}
    if any(places_of_towers(names, _TEXT_LAYERS) for names in states):
        kinds.add(Kind.TEXT_ENCODER)
    elif not path.with_name("config.json").is_file():
        kinds.discard(Kind.TEXT_ENCODER)
    return frozenset(kinds)


def names_in(path: Path) -> Iterator[list[str]]:
    """The names of tensors in each state dict of a file; none for what cannot be read."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
            if start[8:] == b"{":
                size = min(int.from_bytes(start[:8], "little"), _LARGEST_HEADER)
                names: Iterable[str] = json.loads(b"{" + file.read(size - 1))
            elif start.startswith(b"PK"):
                names = _names_in_pickle(_pickle_in_zip(path))
            elif start == TORCH_LEGACY[:9]:  # pickles first, then the data
                names = _names_in_pickle(file.read(_LEGACY_PICKLES))
            else:
                return
    except (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error):
        # Cut off, damaged, encrypted …: the folder is full of other people's files.
        return
    state: list[str] = []
    for name in names:
        if name in CONTAINERS:  # its names follow
            yield state
            state = []
        else:
            state.append(_bare(name))
    yield state


def _pickle_in_zip(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        inner = next((n for n in archive.namelist() if n.endswith("/data.pkl")), None)
        if inner is None or archive.getinfo(inner).file_size > _LARGEST_HEADER:
            return b""
        return archive.read(inner)


def _names_in_pickle(pickled: bytes) -> list[str]:
    """Strings in torch's pickle, which is looked through and not run."""
    strings = [
        pickled[found.end() : found.end() + found[1][0]]
        for found in _PICKLED_STRING.finditer(pickled)
    ]
    return [string.decode("ascii") for string in strings if _NAME.fullmatch(string)]


def _bare(name: str) -> str:
    for prefix in WRAPPERS:
        name = name.removeprefix(prefix)
    return name
