"""Stage A, the VQGAN: pixels <-> the 4×H/4×W/4 latent.

Sources: diffusers `modeling_paella_vq_model.py`; dome272/Wuerstchen `vqgan.py`. v2 decodes
unquantised latents, so the codebook is loaded and kept (training, saving) but not used.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .layers import ChannelNorm, Ops, in_float32, nchw, nhwc


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
        self.norm = ChannelNorm()
        self.depthwise = nn.Sequential(
            nn.ReplicationPad2d(1), ops.Conv2d(channels, channels, kernel_size=3, groups=channels)
        )
        self.channelwise = nn.Sequential(
            ops.Linear(channels, hidden), nn.GELU(), ops.Linear(hidden, channels)
        )
        self.gammas = nn.Parameter(torch.zeros(6))

    def forward(self, x: Tensor) -> Tensor:
        scale1, shift1, gate1, scale2, shift2, gate2 = self.gammas.to(x).unbind()
        h = nhwc(x)
        mixed = self.norm(h) * (1 + scale1) + shift1
        h = h + nhwc(self.depthwise(nchw(mixed))) * gate1
        mixed = self.norm(h) * (1 + scale2) + shift2
        return nchw(h + self.channelwise(mixed) * gate2)


class VectorQuantizer(nn.Module):
    """The codebook. `nearest` gives each latent vector's closest entry."""

    def __init__(self, size: int, channels: int, ops: Ops) -> None:
        super().__init__()
        self.embedding = ops.Embedding(size, channels)

    def nearest(self, latent: Tensor) -> Tensor:
        """B×C×H×W -> indices B×H×W."""
        flat = nhwc(latent).flatten(0, 2).float()
        distance = torch.cdist(flat, self.embedding.weight.float())
        return distance.argmin(dim=1).view(latent.shape[0], *latent.shape[-2:])


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
        return self.down_blocks(self.in_block(pixels.to(self.dtype))).float()

    def decode(self, latent: Tensor) -> Tensor:
        """Latent B×4×h×w in VQ space -> pixels B×3×4h×4w float32, not clamped."""
        return in_float32(self.out_block, self.up_blocks(latent.to(self.dtype)))
