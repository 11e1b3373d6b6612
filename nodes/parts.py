"""What a loader puts on its wire, and the weights a user can choose from."""

import copy
import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from torch import nn

from ..wuerstchen_core.checkpoints import find_parts
from ..wuerstchen_core.checkpoints.detect import Kind
from ..wuerstchen_core.checkpoints.peek import peek
from ..wuerstchen_core.compile import compiled
from ..wuerstchen_core.errors import CheckpointError
from ..wuerstchen_core.optimize import PLAIN, Optimization
from ..wuerstchen_core.residency import weight_bytes
from . import runtime

Network = TypeVar("Network")

WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")


class _Wanted(NamedTuple):
    kind: Kind
    folders: tuple[str, ...]  # ComfyUI's kinds of models


_WANTED = {
    "stage_c": _Wanted(Kind.STAGE_C, ("diffusion_models", "checkpoints")),
    "stage_b": _Wanted(Kind.STAGE_B, ("diffusion_models", "checkpoints")),
    "stage_a": _Wanted(Kind.STAGE_A, ("vae", "checkpoints")),
    "image_encoder": _Wanted(Kind.IMAGE_ENCODER, ("vae", "clip_vision", "checkpoints")),
    "prior_text_encoder": _Wanted(Kind.TEXT_ENCODER, ("text_encoders",)),
    "decoder_text_encoder": _Wanted(Kind.TEXT_ENCODER, ("text_encoders",)),
}


class Weights(Generic[Network]):
    """A network that is read when it is first asked for; parts that keep it alike share one."""

    def __init__(self, read: Callable[[], Network]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self.network: Network | None = None  # once it has been read

    def get(self) -> Network:
        """Raises CheckpointError where the weights cannot be used."""
        with self._lock:
            if self.network is None:
                with runtime.memory_in_words():
                    self.network = self._read()
            return self.network

    @property
    def nbytes(self) -> int:
        """What the weights take in memory; 0 before they are read."""
        module = getattr(self.network, "network", self.network)  # a text encoder's is inside
        return weight_bytes(module) if isinstance(module, nn.Module) else 0


class Part(Generic[Network]):
    """One part of the model and how it is to run; its weights are read when a node first uses it.

    folder: of weights that it was chosen from; it may hold more than networks.
    """

    def __init__(
        self,
        read: Callable[[Optimization], Network],
        folder: Path | None = None,
        optimization: Optimization = PLAIN,
    ) -> None:
        """read: gives the network, run as an optimization says but for what concerns sampling."""
        self.folder = folder
        self.optimization = optimization
        self._read = read
        self.weights = self._unread()
        self._twin = self._compiled()

    def optimized(self, optimization: Optimization) -> "Part[Network]":
        """The part as it runs with `optimization`; this one stays as it is for other branches.

        Both share what they keep alike.
        """
        part = copy.copy(self)
        part.optimization = optimization
        if part._kept() != self._kept():
            part.weights = part._unread()
        part._twin = part._compiled()
        return part

    def _kept(self) -> Optimization:
        """What is done to the weights; parts that agree in it share them. Those that stay in
        their place serve a compiled network too."""
        kept = replace(self.optimization, step_cache=0.0, guidance_end=1.0)
        return replace(kept, compile="off") if kept.residency == "resident" else kept

    def _unread(self) -> Weights[Network]:
        read, kept = self._read, self._kept()
        return Weights(lambda: read(kept))

    def _compiled(self) -> Weights[Network] | None:
        """What runs compiled on the same weights, where that is still to be done."""
        weights, wanted = self.weights, self.optimization.compile
        if wanted == self._kept().compile:
            return None
        graphs = wanted == "cuda_graphs"
        return Weights(lambda: compiled(weights.get(), graphs))  # type: ignore[type-var]

    def get(self) -> Network:
        """The network. Raises CheckpointError where its weights cannot be used."""
        return (self._twin or self.weights).get()

    @property
    def read_ahead(self) -> Callable[[], object] | None:
        """What reads the weights before a node needs them; None once they are read."""
        return self.weights.get if self.weights.network is None else None

    def ready(self, shape: Sequence[int]) -> Network:
        """The network, to run at once on a latent B×C×h×w. ComfyUI makes room for that."""
        return self.get()


def folder_choices() -> list[str]:
    """Folders of weights, by the name they have in a models folder; the demo last."""
    return _unique(
        entry.name for root in runtime.weight_roots() for entry in _entries(root) if entry.is_dir()
    )


def part_choices(part: str) -> list[str]:
    """Folders of weights, single files in or below them, and files in the folders that ComfyUI
    has for this part.

    The latter hold other models' files too; those whose names of tensors tell that are left out.
    """
    own = runtime.weight_roots()
    files = [
        path.relative_to(root).as_posix()
        for root in own
        for path in _weight_files(root)
        if not path.is_relative_to(runtime.BUNDLED_MODELS / runtime.DEMO)
    ]
    return _unique([*folder_choices(), *files, *shared_choices(part)])


def shared_choices(part: str) -> list[str]:
    """The files of a part in the folders that all kinds of models share."""
    own, wanted = runtime.weight_roots(), _WANTED[part].kind
    return [
        path.relative_to(root).as_posix()
        for root in runtime.weight_roots(_WANTED[part].folders)
        if root not in own
        for path in _weight_files(root)
        if _kind_of(path) is wanted and (wanted is not Kind.TEXT_ENCODER or _has_config(path))
    ]


def resolve(name: str, part: str | None = None) -> Path:
    """The file or folder that a choice means; a part's may lie in the folders of its kind too.

    Choices arrive from shared files and the network, so the path is checked again to lie inside a
    models folder. Raises CheckpointError when there is no such thing.
    """
    own = runtime.weight_roots()
    if found := [path for path in _inside(own, name) if path.exists()]:
        return found[0]
    if part is not None:
        shared = _inside(runtime.weight_roots(_WANTED[part].folders), name)
        files = [path for path in shared if path.is_file()]
        # Another model's file may have the same name in another of these folders.
        fitting = [path for path in files if _kind_of(path) is _WANTED[part].kind]
        if files:
            return (fitting or files)[0]
    places = ", ".join(str(root) for root in own if root != runtime.BUNDLED_MODELS)
    raise CheckpointError(
        f"no weights are called {name!r}. Put the folder into "
        f"{places or 'a models folder and name that folder with --models'}."
    )


def stamp(name: str, part: str | None = None) -> str:
    """Another word whenever a file of the choice has changed: the loaders' `IS_CHANGED`."""
    try:
        path = resolve(name, part)
    except CheckpointError:
        return "missing"  # the loader says so
    files = [path] if path.is_file() else sorted(_files(path))
    about = [(str(file), os.stat(file)) for file in files if file.exists()]
    told = repr([(file, one.st_mtime_ns, one.st_size) for file, one in about])
    return hashlib.sha256(told.encode()).hexdigest()


def path_of(name: str, part: str) -> Path:
    """Where one part of a choice lies: the file itself, or the part inside the folder."""
    path = resolve(name, part)
    return path if path.is_file() else find_parts(path).require(part)


def _entries(root: Path) -> list[Path]:
    hidden = (".", "_")
    if not root.is_dir():
        return []
    return sorted(entry for entry in root.iterdir() if not entry.name.startswith(hidden))


def _inside(roots: Iterable[Path], name: str) -> list[Path]:
    # By the words of the path, not by where links lead: users link folders to other disks.
    paths = [(root, Path(os.path.normpath(root / name))) for root in roots]
    return [path for root, path in paths if path != root and path.is_relative_to(root)]


def _weight_files(root: Path) -> Iterator[Path]:
    return (path for path in _files(root) if path.name.lower().endswith(WEIGHT_SUFFIXES))


def _files(root: Path) -> Iterator[Path]:
    """What lies below a folder and is not hidden. Users link folders to other disks, so links are
    followed, each folder once."""
    seen: set[str] = set()
    for folder, subfolders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                yield Path(folder, name)


def _has_config(path: Path) -> bool:
    """Whether it is a whole text encoder: the folder that all models share is full of others."""
    return path.with_name("config.json").is_file()


def _kind_of(path: Path) -> Kind:
    try:
        about = path.stat()
    except OSError:  # a link that leads nowhere
        return Kind.UNKNOWN
    return _peek(path, about.st_mtime_ns, about.st_size)


@lru_cache(maxsize=4096)
def _peek(path: Path, modified: int, size: int) -> Kind:
    """Remembered, because lists of choices are made for each node of each prompt."""
    return peek(path)


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
