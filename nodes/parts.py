"""What a loader puts on its wire, and the weights a user can choose from."""

import os
import threading
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from typing import Generic, TypeVar

from torch import nn

from ..wuerstchen_core.checkpoints import find_parts
from ..wuerstchen_core.errors import CheckpointError
from . import runtime

Network = TypeVar("Network")

WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")


class Part(Generic[Network]):
    """One part of the model; its weights are read when a node first uses it.

    `folder`: of weights that it was chosen from; it may hold more than networks.
    """

    def __init__(self, load: Callable[[], Network], folder: Path | None = None) -> None:
        self.folder = folder
        self._load = load
        self._lock = threading.Lock()
        self._network: Network | None = None

    def get(self) -> Network:
        """The network. Raises CheckpointError where its weights cannot be used."""
        with self._lock:
            if self._network is None:
                self._network = self._load()
            return self._network

    @property
    def weight_bytes(self) -> int:
        """What the weights take in memory; 0 before they are read."""
        module = getattr(self._network, "network", self._network)  # a text encoder's is inside
        if not isinstance(module, nn.Module):
            return 0
        return sum(tensor.nbytes for tensor in chain(module.parameters(), module.buffers()))


def folder_choices() -> list[str]:
    """Folders of weights, by the name they have in a models folder; the demo last."""
    return _unique(
        entry.name for root in runtime.weight_roots() for entry in _entries(root) if entry.is_dir()
    )


def part_choices() -> list[str]:
    """Folders of weights, and single weight files below the models folders."""
    files = [
        path.relative_to(root).as_posix()
        for root in runtime.weight_roots()
        for path in sorted(root.rglob("*"))
        if not path.is_relative_to(runtime.BUNDLED_MODELS / runtime.DEMO)
        and path.suffix in WEIGHT_SUFFIXES
        and path.is_file()
    ]
    return [*folder_choices(), *_unique(files)]


def resolve(name: str) -> Path:
    """The file or folder that a choice means.

    Choices arrive from shared files and the network, so the path is checked again to lie inside a
    models folder. Raises CheckpointError when there is no such thing.
    """
    roots = runtime.weight_roots()
    for root in roots:
        # By the words of the path, not by where links lead: users link folders to other disks.
        path = Path(os.path.normpath(root / name))
        if path != root and path.is_relative_to(root) and path.exists():
            return path
    places = ", ".join(str(root) for root in roots if root != runtime.BUNDLED_MODELS)
    raise CheckpointError(
        f"no weights are called {name!r}. Put the folder into "
        f"{places or 'a models folder and name that folder with --models'}."
    )


def path_of(name: str, part: str) -> Path:
    """Where one part of a choice lies: the file itself, or the part inside the folder."""
    path = resolve(name)
    return path if path.is_file() else find_parts(path).require(part)


def _entries(root: Path) -> list[Path]:
    hidden = (".", "_")
    if not root.is_dir():
        return []
    return sorted(entry for entry in root.iterdir() if not entry.name.startswith(hidden))


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
