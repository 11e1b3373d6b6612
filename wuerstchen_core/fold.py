"""Folding the image embedding's mappers into Stage B's first linears, exact to rounding.

A ResBlock's first linear W reads [x, (skip), M·e + m], where the 1×1 convolution (M, m) widens the
embedding e from 16 to c_cond channels. W_e·(M·e + m) = (W_e·M)·e + W_e·m, so c_cond columns become
16 and the mapper disappears: at the published size 20 % of all parameters.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from .stage_b import StageBConfig

_FIRST_LINEAR = ".channelwise.0.weight"


def fold_embedding_mappers(
    state: Mapping[str, Tensor], config: StageBConfig, dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    """Weights of `StageB(config)` -> weights of `StageB(config, folded=True)`.

    Untouched tensors are passed on as they are. The folded ones are computed in float64, one layer
    at a time, and stored in `dtype`, or in the dtype they had.
    """
    folded = {
        name: value for name, value in state.items() if not name.startswith("effnet_mappers.")
    }
    levels = len(config.c_hidden)
    inject = [*config.inject_effnet, *reversed(config.inject_effnet)]
    for index, reads_embedding in enumerate(inject):
        if not reads_embedding:
            continue
        level = f"down_blocks.{index}." if index < levels else f"up_blocks.{index - levels}."
        mapper = state[f"effnet_mappers.{index}.weight"].flatten(1).double()
        shift = state[f"effnet_mappers.{index}.bias"].double()
        for name in state:
            if name.startswith(level) and name.endswith(_FIRST_LINEAR):
                bias_name = name.removesuffix("weight") + "bias"
                weight, bias = _folded(state[name], state[bias_name], mapper, shift)
                folded[name] = weight.to(dtype or state[name].dtype)
                folded[bias_name] = bias.to(dtype or state[bias_name].dtype)
    return folded


def _folded(weight: Tensor, bias: Tensor, mapper: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """weight: O×(I + c_cond); mapper: c_cond×E -> weight O×(I + E) and bias O, float64."""
    weight = weight.double()
    kept, on_embedding = weight.split([weight.shape[1] - len(shift), len(shift)], dim=1)
    return (
        torch.cat([kept, on_embedding @ mapper], dim=1),
        bias.double() + on_embedding @ shift,
    )
