"""Folding the image embedding's mappers into Stage B's first linears, exact to rounding.

A ResBlock's first linear W reads [x, (skip), M·e + m], where the 1×1 convolution (M, m) widens the
embedding e from 16 to c_cond channels. W_e·(M·e + m) = (W_e·M)·e + W_e·m, so c_cond columns become
16 and the mapper disappears: at the published size 20 % of all parameters.
"""

from collections.abc import Collection, Iterable, Mapping

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
    for index, level in _levels(config).items():
        mapper = state[f"effnet_mappers.{index}.weight"].flatten(1).double()
        shift = state[f"effnet_mappers.{index}.bias"].double()
        for name in list(folded):
            if name.startswith(level) and name.endswith(_FIRST_LINEAR):
                bias_name = name.removesuffix("weight") + "bias"
                plain = folded[name], folded[bias_name]
                weight, bias = _folded(*plain, mapper, shift)
                folded[name] = weight.to(dtype or plain[0].dtype)
                folded[bias_name] = bias.to(dtype or plain[1].dtype)
    return folded


def is_folded(name: str, config: StageBConfig) -> bool:
    """Whether folding changes an unfolded weight of this name, or takes it in."""
    linear = name.rpartition(".")[0] + ".weight"
    levels = tuple(_levels(config).values())
    folds = linear.startswith(levels) and linear.endswith(_FIRST_LINEAR)
    return folds or name.startswith("effnet_mappers.")


def read_to_fold(changed: Iterable[str], names: Collection[str], config: StageBConfig) -> set[str]:
    """Of Stage B's weights: those from which `fold_embedding_mappers` makes all that depend on the
    `changed` ones. names: of all weights."""
    changed = set(changed)
    read = changed | {name for name in names if name.startswith("effnet_mappers.")}
    for index, level in _levels(config).items():
        mapper_changes = any(name.startswith(f"effnet_mappers.{index}.") for name in changed)
        for name in names:
            if name.startswith(level) and name.endswith(_FIRST_LINEAR):
                pair = {name, name.removesuffix("weight") + "bias"}
                read |= pair if mapper_changes or pair & changed else set()
    return read


def _levels(config: StageBConfig) -> dict[int, str]:
    """Of the levels that read the embedding: their mapper's index, and what their names begin
    with."""
    levels = len(config.c_hidden)
    inject = [*config.inject_effnet, *reversed(config.inject_effnet)]
    return {
        index: f"down_blocks.{index}." if index < levels else f"up_blocks.{index - levels}."
        for index, reads_embedding in enumerate(inject)
        if reads_embedding
    }


def _folded(weight: Tensor, bias: Tensor, mapper: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """weight: O×(I + c_cond); mapper: c_cond×E -> weight O×(I + E) and bias O, float64."""
    weight = weight.double()
    kept, on_embedding = weight.split([weight.shape[1] - len(shift), len(shift)], dim=1)
    return (
        torch.cat([kept, on_embedding @ mapper], dim=1),
        bias.double() + on_embedding @ shift,
    )
