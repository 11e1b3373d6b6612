"""The semantic compressor: picture -> the 16×h×w image embedding that Stage B reads.

An EfficientNetV2 backbone (Tan and Le 2021, table 4) with a 1×1 mapper. Parameter names are those
of torchvision's `efficientnet_v2_s(...).features`, as in the published EfficientNetEncoder; v1's
weights are those of `efficientnet_v2_l`.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .layers import Ops
from .residency import device_of

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class BackboneStage(NamedTuple):
    """One row of the architecture table; `fused` rows are FusedMBConv, the others MBConv."""

    fused: bool
    expand: int
    stride: int
    channels: int
    layers: int


_V2_S = (
    BackboneStage(True, 1, 1, 24, 2),
    BackboneStage(True, 4, 2, 48, 4),
    BackboneStage(True, 4, 2, 64, 4),
    BackboneStage(False, 4, 2, 128, 6),
    BackboneStage(False, 6, 1, 160, 9),
    BackboneStage(False, 6, 2, 256, 15),
)

_V2_L = (
    BackboneStage(True, 1, 1, 32, 4),
    BackboneStage(True, 4, 2, 64, 7),
    BackboneStage(True, 4, 2, 96, 7),
    BackboneStage(False, 4, 2, 192, 10),
    BackboneStage(False, 6, 1, 224, 19),
    BackboneStage(False, 6, 2, 384, 25),
    BackboneStage(False, 6, 1, 640, 7),
)


@dataclass(frozen=True)
class ImageEncoderConfig:
    """Field names of the published `config.json`; `stem` and `stages` describe other backbones."""

    c_latent: int = 16
    c_cond: int = 1280  # channels of the backbone's last layer
    effnet: str = "efficientnet_v2_s"
    stem: int = 24
    stages: tuple[BackboneStage, ...] = _V2_S
    stochastic_depth: float = 0.2

    @property
    def downscale(self) -> int:
        """Input pixels per embedding cell and side: 32 for EfficientNetV2."""
        result = 2
        for stage in self.stages:
            result *= stage.stride
        return result


# v1's image encoder.
EFFICIENTNET_V2_L = ImageEncoderConfig(effnet="efficientnet_v2_l", stem=32, stages=_V2_L)


class ConvNormAct(nn.Sequential):
    """Convolution without bias, batch norm, and SiLU unless `act` is False."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        ops: Ops,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        act: bool = True,
    ) -> None:
        conv = ops.Conv2d(
            c_in, c_out, kernel, stride, padding=kernel // 2, groups=groups, bias=False
        )
        layers: list[nn.Module] = [conv, nn.BatchNorm2d(c_out, eps=1e-3)]
        super().__init__(*layers, *([nn.SiLU()] if act else []))


class SqueezeExcitation(nn.Module):
    """Gates channels by the picture's mean of each."""

    def __init__(self, channels: int, squeeze: int, ops: Ops) -> None:
        super().__init__()
        self.fc1 = ops.Conv2d(channels, squeeze, 1)
        self.fc2 = ops.Conv2d(squeeze, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.adaptive_avg_pool2d(x, 1)
        return x * self.fc2(F.silu(self.fc1(pooled))).sigmoid()


class MBConv(nn.Module):
    """An inverted bottleneck, fused or not, with stochastic depth while training."""

    def __init__(
        self, c_in: int, stage: BackboneStage, stride: int, drop_path: float, ops: Ops
    ) -> None:
        super().__init__()
        c_out, hidden = stage.channels, c_in * stage.expand
        if stage.fused and stage.expand == 1:
            layers: list[nn.Module] = [ConvNormAct(c_in, c_out, ops, 3, stride)]
        elif stage.fused:
            layers = [
                ConvNormAct(c_in, hidden, ops, 3, stride),
                ConvNormAct(hidden, c_out, ops, act=False),
            ]
        else:
            layers = [
                ConvNormAct(c_in, hidden, ops),
                ConvNormAct(hidden, hidden, ops, 3, stride, groups=hidden),
                SqueezeExcitation(hidden, max(1, c_in // 4), ops),
                ConvNormAct(hidden, c_out, ops, act=False),
            ]
        self.block = nn.Sequential(*layers)
        self.residual = stride == 1 and c_in == c_out
        self.drop_path = drop_path

    def forward(self, x: Tensor) -> Tensor:
        h = self.block(x)
        if not self.residual:
            return h
        if self.training and self.drop_path > 0:
            keep = torch.rand(len(h), 1, 1, 1, device=h.device) >= self.drop_path
            h = h * keep / (1 - self.drop_path)
        return x + h


class ImageEncoder(nn.Module):
    """EfficientNetV2 and mapper; always evaluate in eval mode (batch statistics)."""

    def __init__(self, config: ImageEncoderConfig, ops: Ops = nn) -> None:
        super().__init__()
        self.config = config
        total = sum(stage.layers for stage in config.stages)
        channels, index = config.stem, 0
        backbone: list[nn.Module] = [ConvNormAct(3, config.stem, ops, 3, 2)]
        for stage in config.stages:
            layers = []
            for j in range(stage.layers):
                stride = stage.stride if j == 0 else 1
                drop_path = config.stochastic_depth * index / total
                layers.append(MBConv(channels, stage, stride, drop_path, ops))
                channels, index = stage.channels, index + 1
            backbone.append(nn.Sequential(*layers))
        backbone.append(ConvNormAct(channels, config.c_cond, ops))
        self.backbone = nn.Sequential(*backbone)
        self.mapper = nn.Sequential(
            ops.Conv2d(config.c_cond, config.c_latent, 1, bias=False),
            nn.BatchNorm2d(config.c_latent),
        )

    @property
    def dtype(self) -> torch.dtype:
        return next(self.backbone.parameters()).dtype

    def float32_modules(self) -> tuple[nn.Module, ...]:
        """Modules whose weights stay float32 when the rest is cast down: the mapper's norm."""
        return (self.mapper,)

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels in [0, 1], B×3×H×W -> embedding B×c_latent×ceil(H/32)×ceil(W/32), float32."""
        mean = torch.tensor(IMAGENET_MEAN, device=pixels.device)[:, None, None]
        std = torch.tensor(IMAGENET_STD, device=pixels.device)[:, None, None]
        features = self.backbone(((pixels.float() - mean) / std).to(self.dtype))
        with torch.autocast(pixels.device.type, enabled=False):
            return self.mapper(features.float())


def encode_picture(encoder: ImageEncoder, pixels: Tensor, grid: tuple[int, int]) -> Tensor:
    """The image embedding of a picture on a given grid: B×3×H×W in [0, 1] -> B×c_latent×h×w.

    The encoder sees the picture at 32 pixels a cell (0.75 of its size on the usual grid), resized
    bilinearly with antialiasing, as in training; on the picture's own device, since not every
    accelerator has that kernel.
    """
    cell = encoder.config.downscale
    size = (grid[0] * cell, grid[1] * cell)
    resized = F.interpolate(pixels.float(), size=size, mode="bilinear", antialias=True)
    return encoder(resized.to(device_of(encoder)))
