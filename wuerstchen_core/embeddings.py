"""Textual inversions (Gal et al. 2022): vectors that a prompt calls by name, like words.

A file is found by its name and read by its content: of all its tensors those count that are as
wide as the text encoder's words, so one file can serve several encoders (`clip_g` beside
`clip_l`). Trainers write them as `clip_g`, `emb_params`, `{"string_to_param": {"*": …}}`,
`{"<token>": …}`, or bundled in a LoRA's file as `bundle_emb.….string_to_param.*`.
"""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .checkpoints.read import read_content, whole

log = logging.getLogger(__name__)

SUFFIXES = (".safetensors", ".pt", ".bin")
BUNDLED = "bundle_emb."  # before every name of an embedding that lies in a LoRA's file


class Embeddings:
    """The textual inversions in some folders."""

    def __init__(self, folders: Sequence[Path] = ()) -> None:
        self.folders = [Path(os.path.abspath(folder)) for folder in folders]

    def __call__(self, name: str, width: int) -> Tensor | None:
        """n×width float32; None where there is no such file.

        n is 0, and a warning says so, where the file is for encoders of other widths.
        Raises UnreadableCheckpointError.
        """
        path = self._find(name)
        if path is None:
            return None
        vectors = read_embedding(path, width)
        if not len(vectors):
            log.warning(
                "embedding:%s has no vectors of the width %d; it is for another text encoder and "
                "is left out here",
                name,
                width,
            )
        return vectors

    def stamp(self, name: str) -> str:
        """Another word whenever the file of this name has come or changed."""
        path = self._find(name)
        about = None if path is None else path.stat()
        return f"{path} {about.st_mtime_ns} {about.st_size}" if about else ""

    def names(self) -> list[str]:
        """What prompts may call, without suffixes, sorted."""
        found = {
            path.relative_to(folder).with_suffix("").as_posix()
            for folder in self.folders
            for path in folder.rglob("*")
            if path.suffix in SUFFIXES and path.is_file()
        }
        return sorted(found)

    def _find(self, name: str) -> Path | None:
        """The file called `name`, with or without its suffix, in or below one of the folders.

        Names come from shared files and the network: one that leads out finds nothing.
        """
        names = [name] if name.endswith(SUFFIXES) else [name + suffix for suffix in SUFFIXES]
        for folder in self._with_subfolders():
            for each in names:
                path = Path(os.path.normpath(folder / each))
                try:
                    if path.is_relative_to(folder) and path.is_file():
                        return path
                except (OSError, ValueError):  # too long, a NUL byte
                    continue
        return None

    def _with_subfolders(self) -> Iterator[Path]:
        """The folders themselves first, then what lies below them."""
        yield from self.folders
        for folder in self.folders:
            for below, subfolders, _ in os.walk(folder):
                subfolders.sort()
                if Path(below) != folder:
                    yield Path(below)


def read_embedding(path: Path, width: int) -> Tensor:
    """n×width float32: what a file has of that width. Raises UnreadableCheckpointError."""
    named = dict(_tensors(read_content(path)))
    bundled = {name: value for name, value in named.items() if name.startswith(BUNDLED)}
    fitting = [
        whole(value, name, path).detach().float().reshape(-1, width)
        for name, value in (bundled or named).items()
        if value.ndim in (1, 2) and value.shape[-1] == width and value.is_floating_point()
    ]
    if not fitting:
        return torch.empty(0, width)
    return torch.cat(fitting) if bundled else fitting[0]


def _tensors(content: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor in nested dictionaries and lists, by its path joined with points."""
    if isinstance(content, Tensor):
        yield name, content
    inner = (
        content.items()
        if isinstance(content, Mapping)
        else enumerate(content)
        if isinstance(content, list)
        else ()
    )
    for key, value in inner:
        yield from _tensors(value, f"{name}.{key}" if name else str(key))
