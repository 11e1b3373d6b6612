"""Stage C, the prior: text -> the 16×h×w latent that holds the picture's content.

Sources: diffusers `modeling_wuerstchen_prior.py`; dome272/Wuerstchen `modules.py` (`Prior`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from .layers import (
    NO_WRAPS,
    AttnBlock,
    ChannelNorm2d,
    KeyValue,
    Modulations,
    Ops,
    ResBlock,
    Times,
    TimestepBlock,
    Wraps,
    in_float32,
    nchw,
    nhwc,
)

# The prior samples z of unit variance; everything else uses the image encoder's own scale
# (published `latent_mean` and `latent_std`).
LATENT_MEAN, LATENT_STD = 42.0, 1.0


@dataclass(frozen=True)
class StageCConfig:
    """Field names and defaults of the published `config.json` (class defaults, not v2's values)."""

    c_in: int = 16  # latent channels
    c: int = 1280  # width; 1536 in the released weights
    c_cond: int = 1024  # text width: 1280 (CLIP-bigG) in v2, 1024 (CLIP-H) in v1
    c_r: int = 64  # timestep embedding width
    depth: int = 16  # 32 in the released weights
    nhead: int = 16  # 24 in the released weights
    dropout: float = 0.1

    family: ClassVar[str] = "stage_c"  # tells its latents from others of this shape
    latent_mean: ClassVar[float] = LATENT_MEAN
    latent_std: ClassVar[float] = LATENT_STD


@dataclass(frozen=True)
class StageCContext:
    """All that Stage C reads beside the latent; the same at every step.

    text: keys and values of each attention block.
    """

    text: list[KeyValue]
    modulations: Modulations
    wraps: Wraps = NO_WRAPS


class StageC(nn.Module):
    """Predicts the noise eps in a Stage C latent."""

    def __init__(self, config: StageCConfig, ops: Ops = nn) -> None:
        super().__init__()
        self.config = config
        c = config.c
        self.projection = ops.Conv2d(config.c_in, c, 1)
        self.cond_mapper = nn.Sequential(
            ops.Linear(config.c_cond, c), nn.LeakyReLU(0.2), ops.Linear(c, c)
        )
        self.blocks = nn.ModuleList()
        for _ in range(config.depth):
            self.blocks.append(ResBlock(c, 0, 3, config.dropout, ops))
            self.blocks.append(TimestepBlock(c, config.c_r, ops))
            self.blocks.append(AttnBlock(c, c, config.nhead, config.dropout, ops))
        self.out = nn.Sequential(ChannelNorm2d(), ops.Conv2d(c, config.c_in * 2, 1))

    @property
    def dtype(self) -> torch.dtype:
        return self.projection.weight.dtype

    def float32_modules(self) -> tuple[nn.Module, ...]:
        """Modules whose weights stay float32 when the rest is cast down."""
        return (self.out,)

    def prepare(
        self, text: Tensor, times: Sequence[float] = (), wraps: Wraps = NO_WRAPS
    ) -> StageCContext:
        """What all steps share: every block's text keys and values, and its modulations.

        text: B×T×c_cond; times: those that will be asked for, as floats; wraps: the edges at which
        the picture goes on at the opposite one.
        """
        mapped = self.cond_mapper(text.to(self.dtype))
        keys = [b.text_key_value(mapped) for b in self.blocks if isinstance(b, AttnBlock)]
        return StageCContext(keys, Modulations(self, self.config.c_r, mapped, times), wraps)

    def heads(self, x: Tensor, t: Times, context: StageCContext) -> tuple[Tensor, Tensor]:
        """The two output heads (a, b), each B×c_in×h×w float32, before the division.

        x: B×c_in×h×w in the prior's own space z (unit variance at t = 1); context: what `prepare`
        gave.
        """
        modulations = context.modulations.at(t)
        text_of_block = iter(context.text)
        h = nhwc(self.projection(x.to(self.dtype)))
        for block in self.blocks:
            if isinstance(block, AttnBlock):
                h = block(h, next(text_of_block))
            elif isinstance(block, TimestepBlock):
                h = block(h, next(modulations))
            else:
                h = block(h, wraps=context.wraps)
        a, b = in_float32(self.out, nchw(h)).chunk(2, dim=1)
        return a, b

    def forward(self, x: Tensor, t: Times, context: StageCContext) -> Tensor:
        """The predicted noise eps, B×c_in×h×w float32; arguments as in `heads`."""
        a, b = self.heads(x, t, context)
        return (x.float() - a) / ((1 - b).abs() + 1e-5)


def to_embedding(z: Tensor, of: type[StageCConfig] = StageCConfig) -> Tensor:
    """The prior's space -> embedding space: e = 42 z - 1, or what other priors (`of`) say."""
    return z * of.latent_mean - of.latent_std


def from_embedding(embedding: Tensor, of: type[StageCConfig] = StageCConfig) -> Tensor:
    """Embedding space -> the prior's space: z = (e + 1) / 42, or what other priors (`of`) say."""
    return (embedding + of.latent_std) / of.latent_mean
