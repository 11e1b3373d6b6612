"""Reading one weight file. Its format comes from its first bytes, never from its name."""

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..errors import UnreadableCheckpointError

State = dict[str, Tensor]

# What the original training scripts put around their weights; averaged weights are preferred.
CONTAINERS = ("ema_state_dict", "state_dict", "effnet_state_dict")
# Where AUTOMATIC1111 keeps the vectors of a textual inversion, by the words they were trained as.
EMBEDDED = "string_to_param"
# What wrappers put before every name: DistributedDataParallel, torch.compile, ComfyUI's savers.
WRAPPERS = ("module.", "_orig_mod.", "model.diffusion_model.")

_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
# How torch.save began its files before they were zip archives: a pickled magic number.
TORCH_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."

# What other things begin with, and what to say of them.
_STRANGERS = (
    (b"version https://git-lfs", "is a Git LFS pointer, not the weights; run `git lfs pull`"),
    (b"<", "is a web page, not the weights; download the file itself"),
    (b"GGUF", "is a GGUF file, which is not supported; use a .safetensors or .pt file"),
)


def read_states(path: Path) -> list[State]:
    """The state dicts that a file holds, averaged ones first. Never runs code from the file.

    Tensors are memory-mapped where the format allows it, so looking at shapes costs little.
    Raises UnreadableCheckpointError.
    """
    contents = _unwrapped(read_content(path))
    states = [state for state in (_tensors(content, path) for content in contents) if state]
    if not states:
        raise UnreadableCheckpointError(f"{path} holds no tensors; a file of weights is expected.")
    return states


def read_content(path: Path) -> Any:
    """What a file of tensors holds, as it was saved. Never runs code from the file.

    Raises UnreadableCheckpointError.
    """
    start = _first_bytes(path)
    if start[8:9] == b"{":
        return _read_safetensors(path)
    if start.startswith((_ZIP, TORCH_LEGACY)):
        return _read_pickle(path)
    raise UnreadableCheckpointError(f"{path} {_what_it_is(start)}.")


def format_of(path: Path) -> str:
    """The format of a file of tensors, in words. Raises UnreadableCheckpointError."""
    start = _first_bytes(path)
    if start[8:9] == b"{":
        return "safetensors"
    return "torch, zipped" if start.startswith(_ZIP) else "torch, before 1.6"


def whole(value: Tensor, name: str, path: Path) -> Tensor:
    """A file's tensor, each value of which the file holds: pickles can repeat one without end, so
    that a small file takes any amount of memory. Raises UnreadableCheckpointError."""
    stored = value.layout is torch.strided and not value.is_meta
    if not stored or value.nbytes > value.untyped_storage().nbytes():
        raise UnreadableCheckpointError(
            f"{path} holds {name} of {value.numel():,} values, which are not all in the file; use "
            "a file of whole tensors, best a .safetensors file."
        )
    return value


def _first_bytes(path: Path) -> bytes:
    if path.is_dir():
        raise UnreadableCheckpointError(f"{path} is a folder; a file of weights is expected.")
    try:
        with path.open("rb") as file:
            return file.read(64)
    except FileNotFoundError:
        raise UnreadableCheckpointError(
            f"{path} does not exist; check the name, or download the file to there."
        ) from None
    except OSError as error:
        raise UnreadableCheckpointError(f"{path} cannot be read: {error.strerror}.") from error


def _what_it_is(start: bytes) -> str:
    if not start:
        return "is empty; download it again"
    if start.startswith(_PICKLE):
        return "is a plain Python pickle, which may hold code and is never opened; use safetensors"
    for mark, meaning in _STRANGERS:
        if start.lstrip().startswith(mark):
            return meaning
    return "is no file of weights (neither safetensors nor torch's format); download it again"


def _read_safetensors(path: Path) -> State:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise UnreadableCheckpointError(
            f"{path} is truncated or damaged ({str(error).rstrip('.')}); download it again."
        ) from error


def _read_pickle(path: Path) -> object:
    """torch's own formats, by the loader that builds nothing but tensors and plain values."""
    zipped = zipfile.is_zipfile(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # damaged pickles raise nearly anything
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        if isinstance(error, UnpicklingError) and code:
            raise UnreadableCheckpointError(
                f"{path} holds Python code ({code[1]}), which is never run; "
                "use a file that holds only weights, best a .safetensors file."
            ) from error
        raise UnreadableCheckpointError(
            f"{path} is truncated, damaged or not torch's format; download it again."
        ) from error


def _unwrapped(content: object) -> list[Mapping[Any, object]]:
    if not isinstance(content, Mapping):
        return []
    if isinstance(words := content.get(EMBEDDED), Mapping):
        return [{f"{EMBEDDED}.{word}": vectors for word, vectors in words.items()}]
    inner = [content[name] for name in CONTAINERS if isinstance(content.get(name), Mapping)]
    return inner or [content]


def _tensors(content: Mapping[Any, object], path: Path) -> State:
    state: State = {}
    for name, value in content.items():
        if isinstance(name, str) and isinstance(value, Tensor):
            state[name] = whole(value, name, path).detach()
    for prefix in WRAPPERS:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state
