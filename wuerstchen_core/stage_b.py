"""Stage B, the decoder: Stage C's latent (and text) -> the 4×H×W latent of Stage A.

A U-net whose blocks read the image embedding at their own resolution.
Sources: diffusers `modeling_wuerstchen_diffnext.py`; dome272/Wuerstchen `modules.py` (`DiffNeXt`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from .layers import (
    NO_WRAPS,
    AttnBlock,
    ChannelNorm,
    ChannelNorm2d,
    KeyValue,
    Modulations,
    Ops,
    ResBlock,
    Times,
    Wraps,
    in_float32,
    nchw,
    nhwc,
)
from .resize import resize_bicubic
from .unet import down_levels, run_levels, up_levels

# Stage A's latent, which wires carry, is VQ_SCALE × what Stage B gives (the published
# `scale_factor`).
VQ_SCALE = 0.3764


@dataclass(frozen=True)
class StageBConfig:
    """Field names and defaults of the published `config.json`."""

    c_in: int = 4
    c_out: int = 4
    c_r: int = 64  # timestep embedding width
    patch_size: int = 2
    c_cond: int = 1024  # width of the mapped text and of the mapped image embedding
    c_hidden: tuple[int, ...] = (320, 640, 1280, 1280)
    nhead: tuple[int, ...] = (-1, 10, 20, 20)
    blocks: tuple[int, ...] = (4, 4, 14, 4)
    level_config: tuple[str, ...] = ("CT", "CTA", "CTA", "CTA")
    inject_effnet: tuple[bool, ...] = (False, True, True, True)
    effnet_embd: int = 16  # channels of the image embedding
    clip_embd: int = 1024  # width of the text states
    kernel_size: int = 3
    dropout: float | tuple[float, ...] = 0.1

    @property
    def level_dropout(self) -> tuple[float, ...]:
        if isinstance(self.dropout, tuple):
            return self.dropout
        return (self.dropout,) * len(self.c_hidden)


@dataclass(frozen=True)
class StageBContext:
    """All that Stage B reads beside the latent; the same at every step.

    text: keys and values of each attention block, empty when there is no text.
    embedding: one B×H×W×E map a level, down then up; None where a level reads none.
    """

    text: list[KeyValue]
    embedding: list[Tensor | None]
    modulations: Modulations
    wraps: Wraps = NO_WRAPS


class StageB(nn.Module):
    """Predicts the noise eps in a Stage B latent.

    `folded` networks read the resized 16-channel embedding itself: the 1×1 `effnet_mappers` are
    multiplied into the linears that follow them (`fold.py`), exact to rounding.
    """

    def __init__(self, config: StageBConfig, folded: bool = False, ops: Ops = nn) -> None:
        super().__init__()
        self.config = config
        self.folded = folded
        hidden = config.c_hidden
        inject = [*config.inject_effnet, *reversed(config.inject_effnet)]

        self.clip_mapper = ops.Linear(config.clip_embd, config.c_cond)
        self.seq_norm = ChannelNorm()
        if not folded:
            self.effnet_mappers = nn.ModuleList(
                ops.Conv2d(config.effnet_embd, config.c_cond, 1) if used else None  # type: ignore[misc]
                for used in inject
            )
        self.embedding = nn.Sequential(
            nn.PixelUnshuffle(config.patch_size),
            ops.Conv2d(config.c_in * config.patch_size**2, hidden[0], 1),
            ChannelNorm2d(),
        )
        convolution = partial(self._convolution, ops=ops)
        self.down_blocks = down_levels(config, convolution, ops)
        self.up_blocks = up_levels(config, convolution, ops)
        self.clf = nn.Sequential(
            ChannelNorm2d(),
            ops.Conv2d(hidden[0], 2 * config.c_out * config.patch_size**2, 1),
            nn.PixelShuffle(config.patch_size),
        )

    def _convolution(self, level: int, skip: int, ops: Ops) -> ResBlock:
        config, beside = self.config, 0
        if config.inject_effnet[level]:
            beside = config.effnet_embd if self.folded else config.c_cond
        dropout = config.level_dropout[level]
        return ResBlock(config.c_hidden[level], skip + beside, config.kernel_size, dropout, ops)

    @property
    def dtype(self) -> torch.dtype:
        return self.clip_mapper.weight.dtype

    def float32_modules(self) -> tuple[nn.Module, ...]:
        """Modules whose weights stay float32 when the rest is cast down."""
        return (self.clf,)

    def prepare(
        self,
        embedding: Tensor,
        size: tuple[int, int],
        text: Tensor | None = None,
        times: Sequence[float] = (),
        wraps: Wraps = NO_WRAPS,
    ) -> StageBContext:
        """What all steps share: text keys and values, the embedding resized for each level, and
        the blocks' modulations.

        embedding: B×effnet_embd×h×w in embedding space; size: (H, W) of the Stage B latent;
        text: B×T×clip_embd or None, then blocks attend to the image alone; times: those that will
        be asked for, as floats; wraps: the edges at which the picture goes on at the opposite one.
        """
        keys: list[KeyValue] = []
        if text is not None:
            mapped = self.seq_norm(self.clip_mapper(text.to(self.dtype)))
            keys = [b.text_key_value(mapped) for b in self.modules() if isinstance(b, AttnBlock)]
        maps = list(self._embedding_maps(embedding, size, wraps))
        like = torch.empty(0, dtype=self.dtype, device=embedding.device)
        return StageBContext(keys, maps, Modulations(self, self.config.c_r, like, times), wraps)

    def _embedding_maps(
        self, embedding: Tensor, size: tuple[int, int], wraps: Wraps
    ) -> Iterator[Tensor | None]:
        count = len(self.config.c_hidden)
        for index in range(2 * count):
            level = index if index < count else 2 * count - 1 - index
            if not self.config.inject_effnet[level]:
                yield None
                continue
            cell = self.config.patch_size * 2**level
            grid = (size[0] // cell, size[1] // cell)
            resized = resize_bicubic(embedding.float(), grid, wraps)
            resized = resized.to(self.dtype).contiguous(memory_format=torch.channels_last)
            yield nhwc(resized if self.folded else self.effnet_mappers[index](resized))

    def heads(self, x: Tensor, t: Times, context: StageBContext) -> tuple[Tensor, Tensor]:
        """The two output heads (a, b), each B×c_out×H×W float32; b in (0.001, 0.999).

        x: B×c_in×H×W (unit variance at t = 1), H and W even after the patch and every halving;
        context: what `prepare` gave.
        """
        h = run_levels(
            self.down_blocks,
            self.up_blocks,
            nhwc(self.embedding(x.to(self.dtype))),
            context.modulations.at(t),
            iter(context.text),
            iter(context.embedding),
            context.wraps,
        )
        a, b = in_float32(self.clf, nchw(h)).chunk(2, dim=1)
        return a, b.sigmoid() * (1 - 2e-3) + 1e-3

    def forward(self, x: Tensor, t: Times, context: StageBContext) -> Tensor:
        """The predicted noise eps, B×c_out×H×W float32; arguments as in `heads`."""
        a, b = self.heads(x, t, context)
        return (x.float() - a) / b
