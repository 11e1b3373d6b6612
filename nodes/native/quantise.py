"""Weights in ComfyUI's own 8-bit layouts, for networks that its memory management moves."""

import json
from collections.abc import Callable
from typing import Any

import comfy.ops  # pyright: ignore[reportMissingImports]
import comfy.quant_ops as quant_ops  # pyright: ignore[reportMissingImports]
import torch
from torch import nn

from ...wuerstchen_core.errors import SettingError
from ...wuerstchen_core.quantise import large_linears

# Of `Optimization.storage`: ComfyUI's name for it, and how it is to choose the scales.
_FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "int8": ("int8_tensorwise", {"per_channel": True}),
    "float8": ("float8_e4m3fn", {"scale": "recalculate"}),
}


def ops_for(storage: str, compute: torch.dtype) -> Any:
    """ComfyUI's layers for weights that `quantiser` is to store; they compute in `compute`.

    Raises SettingError where this ComfyUI has none.
    """
    if _FORMATS[storage][0] not in getattr(quant_ops, "QUANT_ALGOS", {}):
        raise SettingError(
            f"this ComfyUI stores no weights in {storage}; update it, or choose another storage."
        )
    return comfy.ops.mixed_precision_ops({}, compute, full_precision_mm=True)


def quantiser(network: nn.Module, storage: str, ops: Any) -> Callable[[nn.Module], None]:
    """What stores one module's weight in 8 bits, if it is a large linear's; for `place`."""
    name, options = _FORMATS[storage]
    layout = quant_ops.QUANT_ALGOS[name]["comfy_tensor_layout"]
    about = torch.tensor(list(json.dumps({"format": name}).encode()), dtype=torch.uint8)
    large = large_linears(network, ops.Linear)

    def quantise(layer: Any) -> None:
        if layer in large:
            stored = quant_ops.QuantizedTensor.from_float(layer.weight.detach(), layout, **options)
            # As ComfyUI's checkpoints hold such a layer.
            state = {"bias": layer.bias.detach(), "comfy_quant": about}
            layer.load_state_dict({**stored.state_dict("weight"), **state}, assign=True)

    return quantise
