"""Würstchen v1's Stage B: Stage C's latent and a text -> tokens of Stage A's codebook.

A U-net (Paella, Rampas et al. 2022) that reads a map of tokens, some of them random, and gives
each token's logits. Parameter names are those of the published `model_stage_b.pt`, but for
attention, whose packed matrices `checkpoints/rename.py` takes apart.
Source: dome272/Wuerstchen `modules.py` (`Paella`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat

import torch
from torch import Tensor, nn

from ..layers import (
    NO_WRAPS,
    AttnBlock,
    ChannelNorm,
    ChannelNorm2d,
    Modulations,
    Ops,
    ResBlock,
    Times,
    Wraps,
    in_float32,
    nchw,
    nhwc,
)
from ..stage_c import StageCContext
from ..unet import down_levels, run_levels, up_levels


@dataclass(frozen=True)
class PaellaConfig:
    """Field names of the original's arguments, values of the published weights."""

    c_in: int = 256  # a token's embedding
    c_out: int = 256  # what a token's logits are a linear map of
    num_labels: int = 8192  # tokens that there are: the size of Stage A's codebook
    c_r: int = 64  # timestep embedding width
    patch_size: int = 2
    c_cond: int = 1024  # width of the mapped text and of the mapped image embedding
    c_hidden: tuple[int, ...] = (640, 1280, 1280)
    nhead: tuple[int, ...] = (-1, 16, 16)
    blocks: tuple[int, ...] = (4, 12, 4)
    level_config: tuple[str, ...] = ("CT", "CTA", "CTA")
    effnet_embd: int = 16  # channels of the image embedding
    byt5_embd: int = 1024  # width of the text states: CLIP-H's, in spite of the name
    kernel_size: int = 3
    dropout: float | tuple[float, ...] = 0.1

    @property
    def level_dropout(self) -> tuple[float, ...]:
        if isinstance(self.dropout, tuple):
            return self.dropout
        return (self.dropout,) * len(self.c_hidden)


class PaellaContext(StageCContext):
    """All that Paella reads beside the tokens; the same at every step.

    text: keys and values, at each attention block, of the image embedding's and the text's tokens.
    """


class JoiningResBlock(ResBlock):
    """A ResBlock whose extra channels join before the convolution, which mixes them in groups."""

    def __init__(
        self, channels: int, extra_channels: int, kernel_size: int, dropout: float, ops: Ops
    ) -> None:
        super().__init__(channels, 0, kernel_size, dropout, ops)
        self.depthwise = ops.Conv2d(
            channels + extra_channels,
            channels,
            kernel_size,
            padding=kernel_size // 2,
            groups=channels,
        )

    def forward(self, x: Tensor, *extra: Tensor, wraps: Wraps = NO_WRAPS) -> Tensor:
        joined = torch.cat([x, *extra], dim=-1)
        h = self.norm(nhwc(self._mixed(nchw(joined), wraps)))
        return self.channelwise(h).add_(x)


class Paella(nn.Module):
    """Predicts which token belongs where."""

    def __init__(self, config: PaellaConfig, ops: Ops = nn) -> None:
        super().__init__()
        self.config = config
        hidden = config.c_hidden

        self.byt5_mapper = ops.Linear(config.byt5_embd, config.c_cond)
        self.effnet_mapper = ops.Linear(config.effnet_embd, config.c_cond)
        self.seq_norm = ChannelNorm()
        self.in_mapper = nn.Sequential(ops.Embedding(config.num_labels, config.c_in), ChannelNorm())
        self.embedding = nn.Sequential(
            nn.PixelUnshuffle(config.patch_size),
            ops.Conv2d(config.c_in * config.patch_size**2, hidden[0], 1),
            ChannelNorm2d(),
        )

        def convolution(level: int, skip: int) -> ResBlock:
            kind = JoiningResBlock if skip else ResBlock
            dropout = config.level_dropout[level]
            return kind(hidden[level], skip, config.kernel_size, dropout, ops)

        self.down_blocks = down_levels(config, convolution, ops)
        self.up_blocks = up_levels(config, convolution, ops)
        self.clf = nn.Sequential(
            ChannelNorm2d(),
            ops.Conv2d(hidden[0], config.c_out * config.patch_size**2, 1),
            nn.PixelShuffle(config.patch_size),
        )
        self.out_mapper = nn.Sequential(
            ChannelNorm2d(), ops.Conv2d(config.c_out, config.num_labels, 1, bias=False)
        )

    @property
    def dtype(self) -> torch.dtype:
        return self.byt5_mapper.weight.dtype

    @property
    def downscale(self) -> int:
        """Sides of a map of tokens are multiples of this: the patch and every halving."""
        return self.config.patch_size * 2 ** (len(self.config.c_hidden) - 1)

    def float32_modules(self) -> tuple[nn.Module, ...]:
        """Modules whose weights stay float32 when the rest is cast down: what makes logits."""
        return (self.clf, self.out_mapper)

    def prepare(
        self,
        embedding: Tensor,
        text: Tensor | None = None,
        times: Sequence[float] = (),
    ) -> PaellaContext:
        """What all steps share: each attention block's keys and values, and the modulations.

        embedding: B×effnet_embd×h×w, of any size; text: B×T×byt5_embd or None; times: those that
        will be asked for, as floats.
        """
        mapped = self.effnet_mapper(embedding.to(self.dtype).flatten(2).mT)  # row-major h·w tokens
        if text is not None:
            mapped = torch.cat([mapped, self.byt5_mapper(text.to(self.dtype))], dim=1)
        mapped = self.seq_norm(mapped)
        keys = [b.text_key_value(mapped) for b in self.modules() if isinstance(b, AttnBlock)]
        return PaellaContext(keys, Modulations(self, self.config.c_r, mapped, times))

    def forward(self, tokens: Tensor, t: Times, context: PaellaContext) -> Tensor:
        """What `logits` reads: B×c_out×H×W float32.

        tokens: B×H×W integers, sides multiples of `downscale`; at t = 1 all are random. context:
        what `prepare` gave. Guidance mixes these: logits are linear in them, and 32 times as many.
        """
        embedded = nchw(self.in_mapper(tokens)).to(self.dtype)
        h = run_levels(
            self.down_blocks,
            self.up_blocks,
            nhwc(self.embedding(embedded)),
            context.modulations.at(t),
            iter(context.text),
            repeat(None),
            context.wraps,
        )
        norm, _ = self.out_mapper
        return norm(in_float32(self.clf, nchw(h)))

    def logits(self, features: Tensor) -> Tensor:
        """B×c_out×H×W, all of a map or any part of it -> B×num_labels×H×W float32."""
        _, linear = self.out_mapper
        return in_float32(linear, features)
