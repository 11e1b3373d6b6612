"""Starting weights of the diffusion stages.

Source: `_init_weights` of the original modules (facts in each function); the changes that small
models need are marked as such.
"""

import math
from typing import Any

from torch import nn

from ..layers import AttnBlock, ResBlock, TimestepBlock
from ..stage_b import StageB
from ..stage_c import StageC


def initialise_stage_c(stage_c: StageC, small: bool = False) -> None:
    """Xavier everywhere, zero head: eps starts as the input itself.

    small: at small widths the mapped text starts 10 to 20 times weaker than the image tokens that
    it competes with in attention, and zero padding, the only source of position, is invisible to
    an input without a mean; so the text path is stronger and the projection gets a bias.
    """
    network: Any = stage_c  # torch does not type what modules hold
    _xavier(network)
    nn.init.normal_(network.projection.weight, std=0.02 if not small else 0.25)
    for block in network.blocks:
        if isinstance(block, ResBlock):
            _damp(block, 1 / network.config.depth)
        elif isinstance(block, TimestepBlock) and not small:
            nn.init.zeros_(block.mapper.weight)
        elif isinstance(block, AttnBlock) and small:
            kv_mapper: Any = block.kv_mapper[1]
            nn.init.xavier_uniform_(kv_mapper.weight, gain=3.0)
    for layer in (network.cond_mapper[0], network.cond_mapper[2]):
        if small:
            nn.init.xavier_uniform_(layer.weight, gain=1.5)
        else:
            nn.init.normal_(layer.weight, std=0.02)
    if small:
        nn.init.normal_(network.projection.bias, std=1.0)
    nn.init.zeros_(network.out[1].weight)


def initialise_stage_b(stage_b: StageB) -> None:
    """Xavier everywhere, small conditioning maps, zero head with b near 1 (pure noise in)."""
    network: Any = stage_b
    _xavier(network)
    for mapper in network.effnet_mappers:
        if mapper is not None:
            nn.init.normal_(mapper.weight, std=0.02)
    nn.init.normal_(network.clip_mapper.weight, std=0.02)
    # The norm that follows makes the scale of this one irrelevant for what comes out of it.
    nn.init.xavier_uniform_(network.embedding[1].weight, gain=0.02)
    for level in (*network.down_blocks, *network.up_blocks):
        for block in level:
            if isinstance(block, ResBlock):
                _damp(block, 1 / sum(network.config.blocks))
            elif isinstance(block, TimestepBlock):
                nn.init.zeros_(block.mapper.weight)
    nn.init.zeros_(network.clf[1].weight)


def _damp(block: ResBlock, variance: float) -> None:
    """Lets a block add only its share of the variance that all blocks add up to."""
    last: Any = block.channelwise[-1]
    last.weight.data.mul_(math.sqrt(variance))


def _xavier(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
