"""The weights a user can choose from, and what a choice means."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from ..wuerstchen_core.checkpoints import find_parts
from ..wuerstchen_core.checkpoints.detect import Kind
from ..wuerstchen_core.checkpoints.peek import offers
from ..wuerstchen_core.errors import CheckpointError
from ..wuerstchen_core.lora import for_another_model
from . import runtime

WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")


_LORAS = "loras"
# Folders in one of weights that hold what is loaded by other means than parts.
_NO_PARTS = (runtime.EMBEDDINGS, _LORAS)


class _Wanted(NamedTuple):
    kind: Kind
    folders: tuple[str, ...]  # ComfyUI's kinds of models


_WANTED = {
    "stage_c": _Wanted(Kind.STAGE_C, ("diffusion_models", "checkpoints")),
    "stage_b": _Wanted(Kind.STAGE_B, ("diffusion_models", "checkpoints")),
    "stage_a": _Wanted(Kind.STAGE_A, ("vae", "checkpoints")),
    "image_encoder": _Wanted(Kind.IMAGE_ENCODER, ("vae", "clip_vision", "checkpoints")),
    "prior_text_encoder": _Wanted(Kind.TEXT_ENCODER, ("text_encoders", "checkpoints")),
    "decoder_text_encoder": _Wanted(Kind.TEXT_ENCODER, ("text_encoders", "checkpoints")),
    "lora": _Wanted(Kind.LORA, (_LORAS,)),
}


def folder_choices() -> list[str]:
    """Folders of weights, by the name they have in a models folder; the demo last."""
    return _unique(
        entry.name
        for root in runtime.weight_roots()
        for entry in _entries(root)
        if entry.is_dir() and entry.name not in _NO_PARTS
    )


def part_choices(part: str) -> list[str]:
    """Folders of weights, single files in or below them, and files in the folders that ComfyUI
    has for this part.

    The latter hold other models' files too; those whose names of tensors tell that are left out.
    """
    files = [path.relative_to(root).as_posix() for root, path in _own_files()]
    return _unique([*folder_choices(), *files, *shared_choices(part)])


def text_encoder_files() -> list[str]:
    """Files that hold a text encoder for Würstchen, in any folder where one may lie; in the
    folders of weights those that are no part of a repository."""
    own = [
        path.relative_to(root).as_posix()
        for root, path in _own_files()
        if Kind.TEXT_ENCODER in _offered(path) and path.parent.name != "text_encoder"
    ]
    return _unique([*own, *shared_choices("prior_text_encoder")])


def lora_choices() -> list[str]:
    """Files of LoRAs in the loras folder and in those of weights; the demo's last.

    Those whose names of tensors tell that they are for another model are left out.
    """
    roots = [*runtime.weight_roots(_WANTED["lora"].folders), *runtime.weight_roots()]
    return _unique(
        path.relative_to(root).as_posix()
        for root in roots
        for path in _weight_files(root)
        if Kind.LORA in _offered(path) and not _is_foreign_lora(path, path.stat().st_mtime_ns)
    )


def shared_choices(part: str) -> list[str]:
    """The files of a part in the folders that all kinds of models share."""
    own, wanted = runtime.weight_roots(), _WANTED[part].kind
    return [
        path.relative_to(root).as_posix()
        for root in runtime.weight_roots(_WANTED[part].folders)
        if root not in own
        for path in _weight_files(root)
        if wanted in _offered(path)
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
        fitting = [path for path in files if _WANTED[part].kind in _offered(path)]
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


def _own_files() -> Iterator[tuple[Path, Path]]:
    """(root, file) of the parts in our own folders; the demo is offered as a whole."""
    for root in runtime.weight_roots():
        others = (runtime.BUNDLED_MODELS / runtime.DEMO, *(root / name for name in _NO_PARTS))
        for path in _weight_files(root):
            if not any(path.is_relative_to(other) for other in others):
                yield root, path


def _offered(path: Path) -> frozenset[Kind]:
    try:
        about = path.stat()
    except OSError:  # a link that leads nowhere
        return frozenset()
    configured = path.with_name("config.json").is_file()
    return _peek(path, about.st_mtime_ns, about.st_size, configured)


@lru_cache(maxsize=4096)
def _peek(path: Path, modified: int, size: int, configured: bool) -> frozenset[Kind]:
    """Remembered, because lists of choices are made for each node of each prompt. All that
    `offers` looks at is in the key."""
    return offers(path)


@lru_cache(maxsize=4096)
def _is_foreign_lora(path: Path, modified: int) -> bool:
    return for_another_model(path)


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
