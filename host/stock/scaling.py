"""Resizing in ComfyUI's ways, for pictures and latents alike."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ...wuerstchen_core.errors import SettingError, WireError

METHODS = ["nearest-exact", "bilinear", "area", "bicubic", "lanczos"]
CROPS = ["disabled", "center"]


def resize(samples: Tensor, width: int, height: int, method: str, crop: str = "disabled") -> Tensor:
    """B×C×h×w -> B×C×height×width.

    crop "center" keeps the middle that has the new shape; "disabled" stretches.
    Raises WireError for other ranks, SettingError where nothing would be left.
    """
    if samples.ndim != 4:
        raise WireError(
            f"this value has the shape {tuple(samples.shape)}; batch×channels×height×width is "
            "expected to resize it."
        )
    if width < 1 or height < 1:
        raise SettingError(f"the new size is {width}×{height}; make each side at least 1.")
    if crop == "center":
        samples = _middle(samples, width / height)
    if not samples.numel():
        raise SettingError(
            f"nothing is left to resize to {width}×{height}; choose a shape nearer to the old one."
        )
    if method == "lanczos":
        return _lanczos(samples, width, height)
    return F.interpolate(samples, size=(height, width), mode=method)


def _middle(samples: Tensor, aspect: float) -> Tensor:
    """The largest middle part with this width/height, to the nearest whole border."""
    height, width = samples.shape[-2:]
    old = width / height
    left = round((width - width * min(1.0, aspect / old)) / 2)
    top = round((height - height * min(1.0, old / aspect)) / 2)
    return samples[..., top : height - top, left : width - left]


def _lanczos(samples: Tensor, width: int, height: int) -> Tensor:
    """By Pillow, which knows 8 bits a channel: values are cut to [0, 1] and to its levels."""
    levels = (255.0 * samples.movedim(1, -1).float().cpu()).clamp(0, 255).to(torch.uint8)
    pictures = [Image.fromarray(one.squeeze(-1).numpy()) for one in levels]  # C=1: H×W
    resized = [one.resize((width, height), Image.Resampling.LANCZOS) for one in pictures]
    batch = torch.from_numpy(np.stack([np.asarray(one, dtype=np.float32) for one in resized]))
    batch = batch.reshape(len(samples), height, width, -1).movedim(-1, 1)
    return (batch / 255.0).to(samples)
