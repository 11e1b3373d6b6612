"""Antialiased bicubic resizing as two small matrix products.

The resize is linear and separable. As matrix products it is exact, differentiable, and runs in
every dtype and on Apple's MPS, which lacks torch's antialiased kernel.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def resize_bicubic(x: Tensor, size: tuple[int, int]) -> Tensor:
    """B×C×h×w -> B×C×H×W; equals `F.interpolate(mode="bicubic", antialias, align_corners)`."""
    rows = _matrix(x.shape[-2], size[0]).to(x)
    columns = _matrix(x.shape[-1], size[1]).to(x)
    return rows @ x @ columns.T


def _matrix(old: int, new: int) -> Tensor:
    """The new×old matrix that resizes one side: torch's own resize of the identity."""
    identity = torch.eye(old)[None, None]  # each column is one impulse along the height
    resized = F.interpolate(
        identity, size=(new, old), mode="bicubic", antialias=True, align_corners=True
    )
    return resized[0, 0]
