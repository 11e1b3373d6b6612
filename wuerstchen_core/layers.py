"""What Stage B and Stage C share: norms, GRN, timestep block and attention.

Activations are channels-last, B×H×W×C, so that linears, norms and attention read them without a
permute; a depthwise convolution sees the same memory as a channels-last B×C×H×W view.
Module and parameter names are those of the published diffusers checkpoints.
Source: diffusers `modeling_wuerstchen_common.py`, dome272/Wuerstchen `modules.py`.
"""

import math
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# The namespace that layer classes come from: `torch.nn`, or ComfyUI's `comfy.ops` classes.
Ops: TypeAlias = ModuleType | type[Any]

# One attention block's keys and values of the text, each B×T×C.
KeyValue: TypeAlias = tuple[Tensor, Tensor]

# How many tokens of an MLP's hidden layer fit into a CPU's cache.
_TOKENS_IN_CACHE = 64

# Times in [0, 1], 1 = pure noise: one for the whole batch, or a tensor of one for each sample.
Times: TypeAlias = float | Tensor

# Whether the picture goes on at its opposite edge: (from bottom to top, from right to left).
Wraps: TypeAlias = tuple[bool, bool]
NO_WRAPS: Wraps = (False, False)


def nchw(x: Tensor) -> Tensor:
    """B×H×W×C -> B×C×H×W, a view."""
    return x.permute(0, 3, 1, 2)


def nhwc(x: Tensor) -> Tensor:
    """B×C×H×W -> B×H×W×C, a view (free of copies when x is channels-last in memory)."""
    return x.permute(0, 2, 3, 1)


def around(x: Tensor, cells: int, wraps: Wraps) -> Tensor:
    """B×C×H×W with what lies `cells` beyond the edges that wrap: H + 2·cells, W + 2·cells."""
    rows, columns = (cells * wrap for wrap in wraps)
    return F.pad(x, (columns, columns, rows, rows), mode="circular")


def inside(x: Tensor, cells: int, wraps: Wraps) -> Tensor:
    """The inverse of `around`: what lies inside of the edges that wrap."""
    rows, columns = (cells * wrap for wrap in wraps)
    return x[..., rows : x.shape[-2] - rows, columns : x.shape[-1] - columns]


def timestep_embedding(t: Tensor, width: int, max_positions: int = 10_000) -> Tensor:
    """Sine and cosine embedding of times in [0, 1]: B -> B×width, always in float32.

    float32 matters: in half precision 10 000·t is off by up to 31 radians.
    """
    half = width // 2
    scale = -math.log(max_positions) / (half - 1)
    frequencies = torch.arange(half, device=t.device, dtype=torch.float32).mul(scale).exp()
    phase = (t.float() * max_positions)[:, None] * frequencies[None, :]
    embedding = torch.cat([phase.sin(), phase.cos()], dim=1)
    return F.pad(embedding, (0, width % 2))


class ChannelNorm(nn.Module):
    """LayerNorm over the last dimension, without learned scale or shift, eps 1e-6."""

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], eps=1e-6)


class GELU(nn.GELU):
    """Exact GELU; in place where nobody will ask for a gradient.

    Its input is an MLP's hidden layer, four times the width: fresh memory for that costs about as
    much as the function.
    """

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if torch.is_grad_enabled() else torch.ops.aten.gelu_(x)


class GlobalResponseNorm(nn.Module):
    """Divides every channel by its share of the image's energy (ConvNeXt V2, section 3.2).

    In place where nobody will ask for a gradient.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, 1, channels))
        self.beta = nn.Parameter(torch.zeros(1, 1, 1, channels))

    def forward(self, x: Tensor) -> Tensor:
        energy = _norm_over_image(x)
        share = energy / (energy.mean(dim=-1, keepdim=True) + 1e-6)
        # `.to` of a tensor: hosts that stream weights may keep these elsewhere, and smaller.
        scale = (self.gamma.to(share) * share + 1).to(x.dtype)
        into = None if torch.is_grad_enabled() else x
        return torch.addcmul(self.beta.to(x), x, scale, out=into)


def _norm_over_image(x: Tensor) -> Tensor:
    """B×H×W×C -> B×1×1×C float32, whose range the squares of float16 would leave."""
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True, dtype=torch.float32)
    # On the CPU torch walks each channel through all of memory, which takes longer than the MLP's
    # matrix products. Slices that stay in the cache take a tenth of that.
    squares = x.new_zeros(len(x), x.shape[-1], dtype=torch.float32)
    for tokens in x.flatten(1, 2).split(_TOKENS_IN_CACHE, dim=1):
        squares += tokens.float().square().sum(dim=1)
    return squares.sqrt()[:, None, None]


class ResBlock(nn.Module):
    """Depthwise convolution, norm, and a channelwise MLP with GRN; adds its input.

    `extra_channels` (the U-net's skip, the image embedding) join after the norm, where they are
    read by the MLP only (diffusers `ResBlockStageB`; none in Stage C).
    """

    def __init__(
        self, channels: int, extra_channels: int, kernel_size: int, dropout: float, ops: Ops
    ) -> None:
        super().__init__()
        self.depthwise = ops.Conv2d(
            channels, channels, kernel_size, padding=kernel_size // 2, groups=channels
        )
        self.norm = ChannelNorm()
        self.channelwise = nn.Sequential(
            ops.Linear(channels + extra_channels, channels * 4),
            GELU(),
            GlobalResponseNorm(channels * 4),
            nn.Dropout(dropout),
            ops.Linear(channels * 4, channels),
        )

    def forward(self, x: Tensor, *extra: Tensor, wraps: Wraps = NO_WRAPS) -> Tensor:
        h = self.norm(nhwc(self._mixed(nchw(x), wraps)))
        if extra:
            h = torch.cat([h, *extra], dim=-1)
        return self.channelwise(h).add_(x)

    def _mixed(self, x: Tensor, wraps: Wraps) -> Tensor:
        if not any(wraps):
            return self.depthwise(x)
        reach = self.depthwise.padding[0]  # the convolution pads with zeros, which are cut off
        return inside(self.depthwise(around(x, reach, wraps)), reach, wraps)


class TimestepBlock(nn.Module):
    """Scales and shifts every channel by a linear map of the timestep embedding."""

    def __init__(self, channels: int, timestep_channels: int, ops: Ops) -> None:
        super().__init__()
        self.mapper = ops.Linear(timestep_channels, channels * 2)

    def modulation(self, timestep: Tensor) -> Tensor:
        """Timestep embeddings N×c_r -> N×2C: what scales each channel, then what shifts it."""
        scale, shift = self.mapper(timestep).chunk(2, dim=-1)
        return torch.cat([1 + scale, shift], dim=-1)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        """modulation: 1×2C, or B×2C where samples differ in time."""
        scale, shift = modulation[:, None, None].chunk(2, dim=-1)
        return torch.addcmul(shift, x, scale)


class Modulations:
    """What a network's timestep blocks do, for all times of a schedule at once.

    Every block maps the embeddings of the whole schedule in one matrix product; a step then reads
    a row, without a product and without waiting for the device.
    """

    def __init__(self, network: nn.Module, width: int, like: Tensor, times: Sequence[float]):
        """width: of the timestep embedding. like: gives the device and dtype to compute with."""
        self._blocks = [block for block in network.modules() if isinstance(block, TimestepBlock)]
        self._width, self._like = width, like.new_empty(0)
        self._rows = {t: row for row, t in enumerate(times)}
        self._table = list(self._compute(torch.tensor(list(times)))) if times else []

    def at(self, t: Times) -> Iterator[Tensor]:
        """Each block's modulation, in the order of the blocks."""
        if isinstance(t, Tensor):
            return self._compute(t)
        row = self._rows.get(t)
        if row is None:  # a time beyond the schedule
            return self._compute(torch.tensor([t]))
        return (table[row : row + 1] for table in self._table)

    def _compute(self, t: Tensor) -> Iterator[Tensor]:
        embedding = timestep_embedding(t.to(self._like.device), self._width).to(self._like.dtype)
        return (block.modulation(embedding) for block in self._blocks)


class Attention(nn.Module):
    """Multi-head attention with biases everywhere; keys and values may be given."""

    def __init__(self, channels: int, heads: int, dropout: float, ops: Ops) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = ops.Linear(channels, channels)
        self.to_k = ops.Linear(channels, channels)
        self.to_v = ops.Linear(channels, channels)
        self.to_out = nn.ModuleList([ops.Linear(channels, channels), nn.Dropout(dropout)])

    def key_value(self, tokens: Tensor) -> KeyValue:
        return self.to_k(tokens), self.to_v(tokens)

    def forward(self, tokens: Tensor, extra: KeyValue | None) -> Tensor:
        """tokens: B×N×C attend to themselves first, then to `extra` keys and values."""
        key, value = self.key_value(tokens)
        if extra is not None:
            key = torch.cat([key, extra[0].to(key.dtype)], dim=1)
            value = torch.cat([value, extra[1].to(value.dtype)], dim=1)
        query, key, value = (self._split(one) for one in (self.to_q(tokens), key, value))
        mixed = F.scaled_dot_product_attention(query, key, value)
        out, dropout = self.to_out
        return dropout(out(mixed.transpose(1, 2).flatten(2)))

    def _split(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # B×heads×N×head_dim


class AttnBlock(nn.Module):
    """Image tokens attend to themselves and to the mapped text; adds its input."""

    def __init__(
        self, channels: int, text_channels: int, heads: int, dropout: float, ops: Ops
    ) -> None:
        super().__init__()
        self.norm = ChannelNorm()
        self.attention = Attention(channels, heads, dropout, ops)
        self.kv_mapper = nn.Sequential(nn.SiLU(), ops.Linear(text_channels, channels))

    def text_key_value(self, text: Tensor) -> KeyValue:
        """text: B×T×text_channels, already mapped. The same at every step: compute it once."""
        return self.attention.key_value(self.kv_mapper(text))

    def forward(self, x: Tensor, text: KeyValue | None) -> Tensor:
        tokens = self.norm(x).flatten(1, 2)  # row-major H·W tokens
        return self.attention(tokens, text).unflatten(1, x.shape[1:3]).add_(x)


class ChannelNorm2d(ChannelNorm):
    """The same norm for B×C×H×W."""

    def forward(self, x: Tensor) -> Tensor:
        return nchw(super().forward(nhwc(x)))


def in_float32(head: nn.Module, x: Tensor) -> Tensor:
    """Runs an output head in float32, whatever dtype surrounds it.

    The heads' results are divided by small numbers (1 − b, sigmoid(b)), which turns half
    precision's rounding into visible noise.
    """
    with torch.autocast(x.device.type, enabled=False):
        return head(x.float())
