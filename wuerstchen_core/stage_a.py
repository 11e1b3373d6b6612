"""Stage A, the VQGAN: pixels <-> the 4×H/4×W/4 latent.

Sources: diffusers `modeling_paella_vq_model.py`; dome272/Wuerstchen `vqgan.py`. v2 decodes
unquantised latents, so the codebook is loaded and kept (training, saving) but not used.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .layers import Ops, in_float32, nchw, nhwc
from .residency import device_of
from .strips import Layer, in_strips


@dataclass(frozen=True)
class StageAConfig:
    """Field names and defaults of the published `config.json`."""

    in_channels: int = 3
    out_channels: int = 3
    up_down_scale_factor: int = 2
    levels: int = 2
    bottleneck_blocks: int = 12
    embed_dim: int = 384
    latent_channels: int = 4
    num_vq_embeddings: int = 8192
    scale_factor: float = 0.3764  # latent = scale_factor × what Stage B gives

    @property
    def widths(self) -> list[int]:
        return [self.embed_dim // 2**i for i in reversed(range(self.levels))]

    @property
    def downscale(self) -> int:
        """Pixels per latent cell and side: 4."""
        return self.up_down_scale_factor * 2 ** (self.levels - 1)


class MixingResidualBlock(nn.Module):
    """Depthwise mixing, then a channelwise MLP, each with scalar scale, shift and gate."""

    def __init__(self, channels: int, hidden: int, ops: Ops) -> None:
        super().__init__()
        self.depthwise = nn.Sequential(
            nn.ReplicationPad2d(1), ops.Conv2d(channels, channels, kernel_size=3, groups=channels)
        )
        self.channelwise = nn.Sequential(
            ops.Linear(channels, hidden), nn.GELU(), ops.Linear(hidden, channels)
        )
        self.gammas = nn.Parameter(torch.zeros(6))

    def mix_neighbours(self, x: Tensor) -> Tensor:
        """The depthwise half, B×C×H×W: reads the rows above and below."""
        scale, shift, gate = self.gammas[:3].to(x).unbind()
        mixed = self.depthwise(nchw(_normed(nhwc(x), scale, shift)))
        return torch.addcmul(x, mixed, gate)

    def mix_channels(self, x: Tensor) -> Tensor:
        """The channelwise half: reads each position alone."""
        scale, shift, gate = self.gammas[3:].to(x).unbind()
        h = nhwc(x)
        return nchw(torch.addcmul(h, self.channelwise(_normed(h, scale, shift)), gate))

    def forward(self, x: Tensor) -> Tensor:
        return self.mix_channels(self.mix_neighbours(x))


def _normed(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """The norm of the last dimension, scaled and shifted by one number each, in one kernel."""
    width = x.shape[-1:]
    return F.layer_norm(x, width, (1 + scale).expand(width), shift.expand(width), eps=1e-6)


class VectorQuantizer(nn.Module):
    """The codebook, whose entries are called tokens."""

    def __init__(self, size: int, channels: int, ops: Ops) -> None:
        super().__init__()
        self.embedding = ops.Embedding(size, channels)

    def codebook(self, device: torch.device) -> Tensor:
        """All entries, N×C float32; asked of the layer, whose weights a host may keep elsewhere."""
        return self.embedding(torch.arange(self.embedding.num_embeddings, device=device)).float()

    def nearest(self, latent: Tensor) -> Tensor:
        """B×C×H×W -> tokens B×H×W."""
        return nearest(nhwc(latent), self.codebook(latent.device))


def nearest(codes: Tensor, codebook: Tensor) -> Tensor:
    """Each code …×C -> the token whose entry of the codebook, N×C, lies nearest."""
    flat = codes.reshape(-1, codes.shape[-1]).to(codebook)
    return torch.cdist(flat, codebook).argmin(dim=1).view(codes.shape[:-1])


class StageA(nn.Module):
    """The VQGAN's encoder and decoder."""

    def __init__(self, config: StageAConfig, ops: Ops = nn) -> None:
        super().__init__()
        self.config = config
        widths, scale = config.widths, config.up_down_scale_factor
        self.in_block = nn.Sequential(
            nn.PixelUnshuffle(scale), ops.Conv2d(config.in_channels * scale**2, widths[0], 1)
        )
        down: list[nn.Module] = []
        for i, width in enumerate(widths):
            if i > 0:
                down.append(ops.Conv2d(widths[i - 1], width, kernel_size=4, stride=2, padding=1))
            down.append(MixingResidualBlock(width, width * 4, ops))
        # The norm is torch's own: it holds running statistics, which `ops` classes do not offer.
        to_latent = ops.Conv2d(widths[-1], config.latent_channels, 1, bias=False)
        down.append(nn.Sequential(to_latent, nn.BatchNorm2d(config.latent_channels)))
        self.down_blocks = nn.Sequential(*down)

        self.vquantizer = VectorQuantizer(config.num_vq_embeddings, config.latent_channels, ops)

        up: list[nn.Module] = [nn.Sequential(ops.Conv2d(config.latent_channels, widths[-1], 1))]
        for i, width in enumerate(reversed(widths)):
            for _ in range(config.bottleneck_blocks if i == 0 else 1):
                up.append(MixingResidualBlock(width, width * 4, ops))
            if i < config.levels - 1:
                wider = ops.ConvTranspose2d(width, width // 2, kernel_size=4, stride=2, padding=1)
                up.append(wider)
        self.up_blocks = nn.Sequential(*up)
        self.out_block = nn.Sequential(
            ops.Conv2d(widths[0], config.out_channels * scale**2, 1), nn.PixelShuffle(scale)
        )

    @property
    def dtype(self) -> torch.dtype:
        return next(self.in_block.parameters()).dtype

    def float32_modules(self) -> tuple[nn.Module, ...]:
        """Modules whose weights stay float32 when the rest is cast down: what makes pixels."""
        return (self.out_block,)

    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels in [0, 1], B×3×H×W (sides multiples of 4) -> latent B×4×H/4×W/4, unquantised."""
        return next(self.encode_strips(pixels))

    def decode(self, latent: Tensor) -> Tensor:
        """Latent B×4×h×w in VQ space -> pixels B×3×4h×4w float32, not clamped."""
        return next(self.decode_strips(latent))

    def encode_strips(self, pixels: Tensor, rows: int | None = None) -> Iterator[Tensor]:
        """`encode`, giving the latent from the top in strips of about `rows` rows."""
        layers = [
            Layer(self._received, reads_neighbours=False),
            Layer(self.in_block, reads_neighbours=False),
            *_layers(self.down_blocks),
            Layer(Tensor.float, reads_neighbours=False),
        ]
        return in_strips(layers, pixels, cell=self.config.downscale, rows=rows)

    def decode_strips(self, latent: Tensor, rows: int | None = None) -> Iterator[Tensor]:
        """`decode`, giving the pixels from the top in strips of about `rows` rows of the latent."""
        layers = [
            Layer(self._received, reads_neighbours=False),
            *_layers(self.up_blocks),
            Layer(partial(in_float32, self.out_block), reads_neighbours=False),
        ]
        return in_strips(layers, latent, rows=rows)

    def _received(self, x: Tensor) -> Tensor:
        return x.to(device_of(self), self.dtype, memory_format=torch.channels_last)


def _layers(blocks: nn.Sequential) -> Iterator[Layer]:
    for block in blocks:
        if isinstance(block, MixingResidualBlock):
            yield Layer(block.mix_neighbours, reads_neighbours=True)
            yield Layer(block.mix_channels, reads_neighbours=False)
        else:  # those that change the scale overlap; the rest are 1×1
            yield Layer(block, reads_neighbours=not isinstance(block, nn.Sequential))
