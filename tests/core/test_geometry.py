"""Any size works and comes back exactly."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from comfyui_wuerstchen.wuerstchen_core.errors import SettingError, WireError
from comfyui_wuerstchen.wuerstchen_core.geometry import Geometry, on_canvas, stage_b_grid

side = st.integers(64, 4096)


@given(side, side)
def test_every_size_has_a_canvas_that_all_stages_can_work_on(width: int, height: int) -> None:
    geometry = Geometry(width, height)
    for asked, canvas, c, b in zip(
        (height, width), geometry.canvas, geometry.stage_c, geometry.stage_b, strict=True
    ):
        assert canvas % 128 == 0 and asked <= canvas < asked + 128
        assert c * 128 == canvas * 3  # 42.67 px a cell
        assert b * 4 == canvas and b % 16 == 0  # Stage B: patches of 2 and three halvings
    assert stage_b_grid(geometry.stage_c) == geometry.stage_b


@given(st.integers(64, 700), st.integers(64, 700))
def test_crop_gives_exactly_the_asked_size_and_undoes_on_canvas(width: int, height: int) -> None:
    geometry = Geometry(width, height)
    pixels = torch.arange(width * height, dtype=torch.float32).view(1, 1, height, width)
    canvas = on_canvas(pixels, geometry)
    assert tuple(canvas.shape[-2:]) == geometry.canvas
    assert torch.equal(geometry.crop(canvas), pixels)


def test_published_sizes() -> None:
    assert Geometry(1024, 1024).stage_c == (24, 24)
    assert Geometry(1024, 1536).stage_c == (36, 24)
    assert Geometry(1024, 1024).stage_b == (256, 256)


@pytest.mark.parametrize("size", [(63, 100), (100, 63), (4097, 64), (0, 0), (64, -1)])
def test_sizes_out_of_range_are_named(size: tuple[int, int]) -> None:
    with pytest.raises(SettingError, match="64 to 4096"):
        Geometry(*size)


@pytest.mark.parametrize("grid", [(5, 6), (6, 7), (0, 3)])
def test_a_grid_that_stage_b_cannot_halve_is_named(grid: tuple[int, int]) -> None:
    with pytest.raises(WireError, match="multiples of 3"):
        stage_b_grid(grid)
