"""ComfyUI's scaled float8: weights in 8 bits, each beside the number to multiply it by."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..computed import Computed
from ..errors import MismatchedCheckpointError
from .read import State

_FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)
_SCALE = (".scale_weight", ".weight_scale")  # the older and the newer name
_FORMAT = ".comfy_quant"  # JSON in bytes
# What only matters to those who multiply in float8.
_UNREAD = (".scale_input", ".input_scale", _FORMAT, "scaled_fp8")


def split_scales(state: State, path: Path) -> tuple[State, State]:
    """A file's tensors -> its weights, and by the weight's name what to multiply it by.

    Raises MismatchedCheckpointError for weights that are packed in another way.
    """
    scales = {
        f"{name.rpartition('.')[0]}.weight": value
        for name, value in state.items()
        if name.endswith(_SCALE)
    }
    for name, value in state.items():
        if name.endswith(_FORMAT):
            _check_format(value, path)
    for name, scale in scales.items():
        if name not in state or state[name].dtype not in _FLOAT8 or scale.numel() != 1:
            raise MismatchedCheckpointError(
                f"{path} holds {name} quantised in a way that only its own program reads; use "
                "the file in 16 bits, or in float8 with one scale a weight."
            )
    weights = {n: value for n, value in state.items() if not n.endswith((*_SCALE, *_UNREAD))}
    return weights, scales


class Multiplied(Computed):
    """The weights in float32 where they have a scale, the others as they are."""

    def __init__(self, original: Mapping[str, Tensor], scales: State) -> None:
        super().__init__(original)
        self._scales = scales

    def __getitem__(self, name: str) -> Tensor:
        value, scale = self.original[name], self._scales.get(name)
        return value if scale is None else value.float() * scale.float()


def _check_format(value: Tensor, path: Path) -> None:
    try:
        name = json.loads(bytes(value.tolist()))["format"]
    except (ValueError, TypeError, LookupError):
        name = "an unknown format"
    if name not in ("float8_e4m3fn", "float8_e5m2"):
        raise MismatchedCheckpointError(
            f"{path} is quantised as {name}, and only float8 is supported; use the file in 16 bits."
        )
