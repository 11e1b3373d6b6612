"""Weights kept in 8 bits; what is computed with them keeps its dtype. torchao does the work."""

from collections.abc import Callable
from typing import Any

from torch import nn

from .errors import SettingError
from .layers import TimestepBlock
from .residency import float32_modules

# Smaller matrices weigh nothing beside the others.
_LEAST_ELEMENTS = 2**14


def quantiser(network: nn.Module, storage: str) -> Callable[[nn.Module], None] | None:
    """What keeps the weight of one module of a network in 8 bits, if it is a large linear's.

    One scale for each output channel, and the bias as it is. storage: "int8", "float8" (e4m3), or
    "as_loaded", which asks for nothing: None. Raises SettingError where torchao is missing or too
    old.
    """
    if storage == "as_loaded":
        return None
    quantize, config = _torchao(storage)
    large = large_linears(network)

    def quantise(module: nn.Module) -> None:
        if module in large:
            quantize(module, config, filter_fn=lambda each, _name: each is module)

    return quantise


def large_linears(network: nn.Module, kind: type[Any] = nn.Linear) -> set[Any]:
    """The linears of this class that are worth keeping in 8 bits: neither what
    `float32_modules()` names, nor what maps the timestep."""
    heads = float32_modules(network)
    mappers = [module for module in network.modules() if isinstance(module, TimestepBlock)]
    kept = {inner for module in [*heads, *mappers] for inner in module.modules()}
    linears: list[Any] = [module for module in network.modules() if isinstance(module, kind)]
    return {m for m in linears if m.weight.numel() >= _LEAST_ELEMENTS and m not in kept}


def _torchao(storage: str) -> tuple[Any, Any]:
    """What quantises a network, and how."""
    try:
        from torchao.quantization import (
            Float8WeightOnlyConfig,
            Int8WeightOnlyConfig,
            PerRow,
            quantize_,
        )

        config = Int8WeightOnlyConfig if storage == "int8" else Float8WeightOnlyConfig
        # Their settings for the compiler would hold for the whole process.
        return quantize_, config(granularity=PerRow(), set_inductor_config=False)
    except (ImportError, TypeError):  # absent, or before these settings existed
        raise SettingError(
            f"storage {storage} needs a current torchao; run `pip install torchao --upgrade`, or "
            "choose as_loaded."
        ) from None
