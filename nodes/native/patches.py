"""LoRAs as patches that ComfyUI applies when it loads a weight, or while a layer runs."""

from dataclasses import fields
from typing import Any

import torch
from comfy.weight_adapter import WeightAdapterBase  # pyright: ignore[reportMissingImports]
from torch import Tensor

from ...wuerstchen_core.fold import fold_embedding_mappers, is_folded, read_to_fold
from ...wuerstchen_core.lora import Changed, Changes, sum_of
from ...wuerstchen_core.lora.apply import Opened
from ...wuerstchen_core.stage_b import StageB


class Patch(WeightAdapterBase):
    """The changes of one weight, added up as outside of ComfyUI.

    ComfyUI makes copies on other devices by `Patch(loaded_keys, weights)` of the tensors that it
    finds in tuples, so an adapter lies there as a tuple of its kind and its fields.
    """

    name = "wuerstchen"

    def __init__(self, loaded_keys: set[str], weights: tuple[Any, ...]) -> None:
        self.loaded_keys = loaded_keys
        self.weights = weights

    def calculate_weight(
        self,
        weight: Tensor,
        key: str,
        strength: float,
        strength_model: float,
        offset: Any,
        function: Any,
        intermediate_dtype: torch.dtype = torch.float32,
        original_weight: Any = None,
    ) -> Tensor:
        total = sum_of([(_adapter(one), factor) for one, factor in self.weights], weight)
        return weight.add_(function(strength * total).to(weight.dtype))


def with_patches(patcher: Any, weights: Opened, changes: Changes) -> Any:
    """A clone of a stage's ModelPatcher, of the same weights, that LoRAs change.

    weights: those that the network was made of. Changes that reach Stage B's folded linears are
    added to those as a whole.
    """
    network = patcher.model.diffusion_model
    folded = isinstance(network, StageB) and network.folded
    inside = {n: c for n, c in changes.items() if folded and is_folded(n, weights.config)}
    patches: dict[str, Any] = {
        name: patch_of(own) for name, own in changes.items() if name not in inside
    }
    if inside:
        patches |= _folded_differences(weights, inside)
    patched = patcher.clone()
    patched.add_patches({f"diffusion_model.{name}": patch for name, patch in patches.items()})
    return patched


def patch_of(changes: Any) -> Patch:
    """changes: of one weight, each with its strength."""
    return Patch(set(), tuple((_plain(adapter), strength) for adapter, strength in changes))


def _folded_differences(weights: Opened, changes: Changes) -> dict[str, Any]:
    read = read_to_fold(changes, weights.state, weights.config)
    changed = Changed(weights.state, changes)
    before, after = (
        fold_embedding_mappers({name: state[name] for name in read}, weights.config, torch.float32)
        for state in (weights.state, changed)
    )
    return {name: ("diff", (after[name] - before[name],)) for name in after}


def _plain(adapter: Any) -> tuple[Any, ...]:
    values = (getattr(adapter, field.name) for field in fields(adapter))
    return (type(adapter), *(_plain(v) if hasattr(v, "delta") else v for v in values))


def _adapter(plain: tuple[Any, ...]) -> Any:
    kind, *values = plain
    return kind(*(_adapter(v) if _is_plain(v) else v for v in values))


def _is_plain(value: Any) -> bool:
    return isinstance(value, tuple) and isinstance(value[0], type)
