"""Running local layers over a picture in strips of rows: exact, and nothing is computed twice.

A layer that reads the rows beside its own holds back its last row until the next strip brings what
lies below, and keeps the two rows that the next strip starts from. So memory grows with the width
and the height of a strip, not with the picture, and a strip's activations stay in a CPU's cache.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Layer(NamedTuple):
    """A step of a network, B×C×H×W -> B×C'×H'×W', that may change the scale of a picture."""

    run: Callable[[Tensor], Tensor]
    reads_neighbours: bool  # up to one cell away, with padding of its own at the picture's edges


def in_strips(
    layers: Sequence[Layer], x: Tensor, cell: int = 1, rows: int | None = None
) -> Iterator[Tensor]:
    """Runs `layers` over x, B×C×(cells·cell)×W; gives the result strip by strip, from the top.

    cell: rows of x that make one row of cells, which no strip divides.
    rows: of cells in a strip; None takes the picture in one piece. The first and the last strip are
        taller by one row for each layer that reads neighbours.
    """
    cells = x.shape[2] // cell
    delay = sum(layer.reads_neighbours for layer in layers)
    starts = [0, *range(delay + rows, cells, rows)] if rows else [0]
    held: list[Tensor | None] = [None] * len(layers)
    for start, stop in zip(starts, [*starts[1:], cells], strict=True):
        strip, count = x[:, :, start * cell : stop * cell], stop - start
        above, below = start > 0, stop < cells
        for index, layer in enumerate(layers):
            if not layer.reads_neighbours:
                strip = layer.run(strip)
                continue
            kept = held[index]
            if kept is not None:
                strip, count = torch.cat([kept, strip], dim=2), count + 2
            if below:
                held[index] = strip[:, :, -2 * (strip.shape[2] // count) :].clone()
            strip = layer.run(strip)
            size = strip.shape[2] // count  # rows that now make one row of cells
            strip = strip[:, :, size * above : strip.shape[2] - size * below]
            count -= above + below
        yield strip
