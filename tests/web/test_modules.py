"""What the canvas shows is what the core computes."""

from itertools import product
from typing import Any

import pytest

from comfyui_wuerstchen.wuerstchen_core.errors import SettingError
from comfyui_wuerstchen.wuerstchen_core.geometry import LARGEST, SMALLEST, Geometry
from comfyui_wuerstchen.wuerstchen_core.schedule import SCHEDULERS, times

from .conftest import CallJs

STEPS = (*range(1, 32), 99, 100, 1000)
DENOISE = (0, 0.01, 0.1, 0.3, 0.33, 0.5, 0.55, 0.7, 0.9, 0.99, 1)


def test_sizes_are_those_of_the_geometry(call_js: CallJs) -> None:
    sides = range(SMALLEST, LARGEST + 1)
    found = call_js("geometry.js", "sizesOf", *([side] for side in sides))
    for side, sizes in zip(sides, found, strict=True):
        of = Geometry(side, side)
        expected = {"canvas": of.canvas[0], "stageC": of.stage_c[0], "stageB": of.stage_b[0]}
        assert sizes == expected, side


def test_the_line_is_width_times_height(call_js: CallJs) -> None:
    line, *others = call_js(
        "views.js", "sizeWords", [1000, 1400], [63, 1000], [1000, 4097], [1000.5, 1000], [1000]
    )
    assert " ".join(line) == "1000×1400 → canvas 1024×1408 → Stage C 24×33 → Stage B 256×352"
    refused = ["Each side may be 64 to 4096 px."]
    assert others == [refused, refused, refused, ["The size comes through a wire."]]


def test_times_are_those_of_the_schedule(call_js: CallJs) -> None:
    settings = [list(call) for call in product(SCHEDULERS, STEPS, DENOISE)]
    for call, found in zip(settings, call_js("schedule.js", "times", *settings), strict=True):
        assert found == pytest.approx(times(*call), rel=0, abs=1e-12), call


def test_settings_that_the_core_refuses_have_no_times(call_js: CallJs) -> None:
    refused: list[list[Any]] = [
        ["karras", 29, 1],
        ["toString", 29, 1],
        ["default", 0, 1],
        ["default", 29, 1.01],
        ["default", 29, -0.01],
    ]
    for call in refused:
        with pytest.raises(SettingError):
            times(*call)
    assert call_js("schedule.js", "times", *refused) == [None] * len(refused)


def test_an_inserted_workflow_moves_down_past_what_it_would_cover(call_js: CallJs) -> None:
    box = {"left": 0, "top": 0, "width": 100, "height": 100}

    def frame(left: int, top: int, height: int) -> dict[str, int]:
        return {"left": left, "top": top, "width": 100, "height": height}

    beside, over, below, far = (
        frame(100, 0, 500),
        frame(50, -50, 100),
        frame(-50, 200, 300),
        frame(0, 2000, 100),
    )
    assert call_js(
        "insert.js",
        "freeTop",
        [box, []],
        [box, [beside, far]],
        [box, [over]],
        [box, [far, below, beside, over]],
    ) == [0, 0, 130, 580]
