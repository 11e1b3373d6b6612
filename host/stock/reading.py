"""Finding the file that a graph names: inside its folder, or one that the user named himself."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from ...nodes.runtime import surroundings
from ...wuerstchen_core.errors import WuerstchenError

# The pictures of the example workflows, found when the input folder has none of that name.
EXAMPLES = Path(__file__).resolve().parents[2] / "input"


class InputFileError(WuerstchenError):
    """A file that a graph names cannot be used."""


def find_input(name: str) -> Path:
    """The file called `name` in the input folder, or `name [output]`, `name [temp]` elsewhere.

    A path that leaves its folder, by `..`, as an absolute path or through a symbolic link, is
    treated like a file that is not there.
    """
    here = surroundings()
    extra: Mapping[str, Path] = getattr(here, "extra_inputs", {})
    if name in extra:
        return extra[name]
    folders = {
        "input": (here.input_dir(), EXAMPLES),
        "output": (here.output_dir(),),
        "temp": (here.temp_dir(),),
    }
    plain, kind = name, "input"
    for candidate in folders:
        if name.endswith(f"[{candidate}]"):
            plain, kind = name.removesuffix(f"[{candidate}]").rstrip(), candidate
    try:
        for folder in map(Path.resolve, folders[kind]):
            path = (folder / plain).resolve()
            if path.is_relative_to(folder) and path.is_file():
                return path
    except (OSError, ValueError):  # too long, a NUL byte, a loop of links
        pass
    raise InputFileError(
        f"There is no file '{name}' in the {kind} folder; put it there, or name another."
    )


def list_inputs(suffixes: frozenset[str]) -> list[str]:
    """The names of the files with such a suffix directly in the input folder, sorted; the
    examples' pictures too."""
    names = {
        path.name
        for folder in (surroundings().input_dir(), EXAMPLES)
        if folder.is_dir()
        for path in folder.iterdir()
        if path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file()
    }
    return sorted(names)


def file_hash(name: str) -> str:
    return hashlib.sha256(find_input(name).read_bytes()).hexdigest()
