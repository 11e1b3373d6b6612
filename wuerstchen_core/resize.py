"""Antialiased bicubic resizing as two small matrix products.

The resize is linear and separable. As matrix products it is exact, differentiable, and runs in
every dtype and on Apple's MPS, which lacks torch's antialiased kernel.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from .layers import NO_WRAPS, Wraps


def resize_bicubic(x: Tensor, size: tuple[int, int], wraps: Wraps = NO_WRAPS) -> Tensor:
    """B×C×h×w -> B×C×H×W; equals `F.interpolate(mode="bicubic", antialias, align_corners)`.

    wraps: along these sides the picture goes on at its opposite edge.
    """
    rows = _matrix(x.shape[-2], size[0], wraps[0]).to(x)
    columns = _matrix(x.shape[-1], size[1], wraps[1]).to(x)
    return rows @ x @ columns.T


def _matrix(old: int, new: int, wraps: bool) -> Tensor:
    """The new×old matrix that resizes one side: torch's own resize of the identity."""
    identity = torch.eye(old)[None, None]  # each column is one impulse along the height
    if not wraps:
        return _resized(identity, new, align_corners=True)
    # Corners that are aligned would be the same place twice in a picture without edges.
    three_times = identity.repeat(1, 1, 3, 1)
    return _resized(three_times, 3 * new, align_corners=False)[new : 2 * new]


def _resized(columns: Tensor, rows: int, align_corners: bool) -> Tensor:
    size = (rows, columns.shape[-1])
    return F.interpolate(
        columns, size=size, mode="bicubic", antialias=True, align_corners=align_corners
    )[0, 0]
