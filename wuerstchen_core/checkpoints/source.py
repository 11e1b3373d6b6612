"""Which files a path means: one file, a folder's weights, or the shards that an index names."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from ..errors import UnreadableCheckpointError
from .read import State, read_states

# The names that savers use, the preferred first.
_STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
_WEIGHT_NAMES = tuple(
    f"{stem}{suffix}"
    for suffix in (
        ".safetensors",
        ".safetensors.index.json",
        ".fp16.safetensors",
        ".bin",
        ".fp16.bin",
        ".bin.index.json",
    )
    for stem in _STEMS
)
_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")


@dataclass(frozen=True)
class Source:
    """Files that together hold the weights, and the config.json that belongs to them."""

    files: tuple[Path, ...]
    config: Path | None


def find_source(path: Path) -> Source:
    """A folder (config.json and weights) or a file of weights -> the files to read.

    Raises UnreadableCheckpointError where there are no weights.
    """
    if not path.is_dir():
        named = path.name in _WEIGHT_NAMES  # such a file is one with the config.json beside it
        return Source(_files(path), _existing(path.with_name("config.json")) if named else None)
    weights = _named_weights(path) or _lone_weights(path)
    if weights is None:
        raise UnreadableCheckpointError(
            f"{path} holds no weights; {_WEIGHT_NAMES[0]} is expected in it."
        )
    return Source(_files(weights), _existing(path / "config.json"))


def parts_in(folder: Path) -> list[Path]:
    """What of a folder can be loaded: the folder itself, if it holds one part, else its files."""
    return [folder] if _named_weights(folder) else _weight_files(folder)


def _named_weights(folder: Path) -> Path | None:
    return next((folder / name for name in _WEIGHT_NAMES if (folder / name).is_file()), None)


def _lone_weights(folder: Path) -> Path | None:
    files = _weight_files(folder)
    return files[0] if len(files) == 1 else None


def _weight_files(folder: Path) -> list[Path]:
    return [path for path in entries(folder) if path.suffix in _SUFFIXES and path.is_file()]


def entries(folder: Path) -> list[Path]:
    """What lies in a folder, sorted; hidden things and folders that may not be read left out."""
    found = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    return [path for path in found if path.is_file() or os.access(path, os.R_OK | os.X_OK)]


def read_source(source: Source) -> list[State]:
    """All state dicts of the files; shards are joined to one."""
    if len(source.files) == 1:
        return read_states(source.files[0])
    return [{name: value for file in source.files for name, value in read_states(file)[0].items()}]


def _files(path: Path) -> tuple[Path, ...]:
    if not path.name.endswith(".index.json"):
        return (path,)
    try:
        shards = {str(name) for name in json.loads(path.read_text("utf-8"))["weight_map"].values()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UnreadableCheckpointError(f"{path} is no index of weight files: {error}.") from error
    # Only names in the same folder count: an index may come from anywhere.
    return tuple(sorted(path.with_name(Path(name).name) for name in shards))


def _existing(path: Path) -> Path | None:
    return path if path.is_file() else None
