"""Files that ComfyUI's users already have, in ComfyUI."""

from __future__ import annotations

import pytest

from .conftest import Install
from .test_native import EXACT, answered, numbers

pytestmark = [pytest.mark.comfyui, pytest.mark.slow]


def test_a_text_encoder_in_one_file_uses_the_tokenizer_of_comfyui(
    install: Install, tmp_path_factory: pytest.TempPathFactory
) -> None:
    found = numbers(answered(install, tmp_path_factory, "text_file"), "text_file")
    assert found["offered"] and found["padding"] == 49_407
    assert found["ours"] <= EXACT and found["native"] <= EXACT
