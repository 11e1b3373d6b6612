"""Stage A over pictures of any size: one at a time, in strips that fit into memory."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from .batches import halving
from .layers import NO_WRAPS, Wraps, around, inside
from .memory import strip_rows
from .stage_a import StageA

# (rows done, rows in all) after each strip; raise from it to cancel.
Progress = Callable[[int, int], None]


def decode(
    stage_a: StageA,
    latent: Tensor,
    progress: Progress | None = None,
    wraps: Wraps = NO_WRAPS,
) -> Tensor:
    """Latent B×4×h×w in VQ space -> pixels B×3×4h×4w float32 on the CPU, not clamped.

    wraps: the edges at which the picture goes on at the opposite one.
    """
    config, reach = stage_a.config, _reach(stage_a)
    latent = around(latent, reach, wraps)
    batch, _, height, width = latent.shape
    size = (height * config.downscale, width * config.downscale)
    pixels = torch.empty(batch, config.out_channels, *size)
    _fill(pixels, stage_a.decode_strips, latent, strip_rows(stage_a, width), progress)
    return inside(pixels, reach * config.downscale, wraps)


def encode(
    stage_a: StageA,
    pixels: Tensor,
    progress: Progress | None = None,
    wraps: Wraps = NO_WRAPS,
) -> Tensor:
    """Pixels in [0, 1], B×3×H×W (sides multiples of 4) -> latent B×4×H/4×W/4 on the CPU.

    wraps: as above.
    """
    config, reach = stage_a.config, _reach(stage_a)
    pixels = around(pixels, reach * config.downscale, wraps)
    batch, _, height, width = pixels.shape
    size = (height // config.downscale, width // config.downscale)
    latent = torch.empty(batch, config.latent_channels, *size)
    _fill(latent, stage_a.encode_strips, pixels, strip_rows(stage_a, size[1]), progress)
    return inside(latent, reach, wraps)


def _reach(stage_a: StageA) -> int:
    """Latent cells from which a pixel is computed, at most, in each direction."""
    return stage_a.config.bottleneck_blocks + stage_a.config.levels


def _fill(
    results: Tensor,
    strips: Callable[[Tensor, int], Iterator[Tensor]],
    samples: Tensor,
    rows: int,
    progress: Progress | None,
) -> None:
    """Writes each sample's strips, `rows` rows at a time, to where they belong in `results`."""
    height = results.shape[2]

    def run(index: int, rows: int) -> int:
        top = 0
        for strip in strips(samples[index : index + 1], rows):
            bottom = top + strip.shape[2]
            results[index, :, top:bottom] = strip[0]
            top = bottom
            if progress is not None:
                progress(index * height + top, len(results) * height)
        return rows

    for index in range(len(samples)):
        rows = halving(partial(run, index), rows)
