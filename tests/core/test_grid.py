"""Pictures side by side in one, with words."""

import pytest
import torch

from comfyui_wuerstchen.wuerstchen_core.errors import WireError
from comfyui_wuerstchen.wuerstchen_core.grid import GAP, labelled_grid

COLORS = [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 1.0, 0.0)]


def plain(color, height=64, width=64, batch=1):
    return torch.tensor(color).reshape(1, 3, 1, 1).expand(batch, 3, height, width)


CELLS = [plain(color) for color in COLORS]


def test_without_labels_only_the_pictures():
    made = labelled_grid(CELLS, ["", ""], ["", ""])
    assert made.shape == (3, 2 * (64 + GAP), 2 * (64 + GAP))
    for number, color in enumerate(COLORS):
        row, column = divmod(number, 2)
        window = made[:, row * (64 + GAP) :, column * (64 + GAP) :][:, :64, :64]
        assert torch.equal(window, plain(color)[0])


def dark(region):
    """Pixels that ink has touched."""
    return int((region.amax(0) < 0.5).sum())


def test_labels_stand_above_and_beside():
    made = labelled_grid(CELLS, ["left", ""], ["", "below"])
    top, left = made.shape[1] - 2 * (64 + GAP), made.shape[2] - 2 * (64 + GAP)
    assert top > 8 and left == 32 + GAP
    assert torch.equal(made[:, top : top + 64, left : left + 64], plain(COLORS[0])[0])
    assert dark(made[:, :top, left : left + 64]) > 10 and not dark(made[:, :top, left + 68 :])
    assert dark(made[:, top + 68 :, :left]) > 10 and not dark(made[:, top : top + 64, :left])


def test_long_labels_are_broken_into_lines():
    one = labelled_grid(CELLS, ["a", "b"], ["", ""]).shape[1]
    words = labelled_grid(CELLS, ["a picture of many words that go on", "b"], ["", ""])
    letters = labelled_grid(CELLS, ["a" * 60, "b"], ["", ""])
    for made in (words, letters):
        assert made.shape[1] > one + 20
        # Nothing of the first column's label runs into the second's.
        last_line = made.shape[1] - 2 * (64 + GAP) - 20
        assert dark(made[:, :last_line, :64]) and not dark(made[:, :last_line, 64 + GAP :])


def test_cells_of_other_sizes_and_of_batches():
    cells = [plain(COLORS[0], 32, 32), plain(COLORS[1], batch=2)]
    made = labelled_grid(cells, ["", ""], [""])
    assert made.shape == (3, 64 + GAP, 2 * (128 + GAP))
    assert torch.equal(made[:, 16:48, 48:80], plain(COLORS[0], 32, 32)[0])
    assert torch.equal(made[:, :64, 132:260], plain(COLORS[1], 64, 128)[0])


def test_a_grid_needs_a_picture_for_each_cell():
    with pytest.raises(WireError, match="3 pictures for 2 columns and 2 rows"):
        labelled_grid(CELLS[:3], ["", ""], ["", ""])
