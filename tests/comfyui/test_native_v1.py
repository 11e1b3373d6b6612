"""Würstchen v1 inside ComfyUI; see `native_v1.py` for what the case does."""

from __future__ import annotations

import pytest

from .conftest import Install
from .test_native import EXACT, answered, numbers

pytestmark = [pytest.mark.comfyui, pytest.mark.slow]


def test_v1_gives_what_plain_python_gives(
    install: Install, tmp_path_factory: pytest.TempPathFactory
) -> None:
    found = numbers(answered(install, tmp_path_factory, "v1"), "v1")
    assert found["stage_c"] <= 100 * EXACT and found["image_encoder"] <= EXACT, found
    assert found["stage_b"] > 0.99 and found["picture"] == [1, 128, 128, 3], found
    assert found["hosted"] == "ComfyPaella"
