"""Between tensors and pictures."""

import torch
from PIL import Image
from torch import Tensor


def to_pil(pixels: Tensor) -> Image.Image:
    """3×H×W in [0, 1] -> an RGB picture, rounded to 8 bits."""
    values = (pixels.clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(values.permute(1, 2, 0).contiguous().cpu().numpy())
