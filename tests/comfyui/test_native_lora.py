"""Our LoRAs and merges inside ComfyUI; see `native_lora.py` for what each case does."""

from __future__ import annotations

import pytest

from .conftest import Install
from .test_native import EXACT, Answers, answered, numbers

pytestmark = [pytest.mark.comfyui, pytest.mark.slow]

CASES = (
    "our_loras",
    "our_loras_in_part",
    "our_lora_with_hooks",
    "our_lora_on_stage_b",
    "our_lora_on_the_text_encoder",
    "our_merge",
)


@pytest.fixture(scope="module")
def answers(install: Install, tmp_path_factory: pytest.TempPathFactory) -> Answers:
    return answered(install, tmp_path_factory, *CASES)


def test_loras_under_both_kinds_of_samplers(answers: Answers) -> None:
    found = numbers(answers, "our_loras")
    for kind in ("attention", "dora", "loha"):
        assert found[kind]["ours"] <= 10 * EXACT and found[kind]["native"] <= 10 * EXACT, found
        assert found[kind]["changes"] > 0.01, found
    assert found["order"] <= 10 * EXACT and found["strength 0"] and found["listed"], found
    assert found["same network"] and found["plain again"] == found["native again"] == 0, found


def test_loras_on_layers_that_are_cast_stored_small_or_compiled(answers: Answers) -> None:
    found = numbers(answers, "our_loras_in_part")
    assert found["low"] and found["in part"] <= 10 * EXACT, found
    assert found["float8"] < 0.2 < found["changes"] and found["compiled"] < 1e-3, found


def test_hooks_on_a_model_that_has_a_lora(answers: Answers) -> None:
    found = numbers(answers, "our_lora_with_hooks")
    assert found["error"] <= 10 * EXACT and found["changes"] > 0.01, found
    assert found["without hooks again"] <= EXACT, found


def test_a_lora_on_the_folded_stage_b(answers: Answers) -> None:
    found = numbers(answers, "our_lora_on_stage_b")
    assert found["error"] <= 10 * EXACT and found["plain again"] == 0, found
    assert found["changes"] > 0.01, found


def test_a_lora_on_the_text_encoder(answers: Answers) -> None:
    found = numbers(answers, "our_lora_on_the_text_encoder")
    assert found["error"] <= 1e-4 and found["native"] <= 1e-4, found
    assert found["changes"] > 0.01 and found["plain again"] == 0, found


def test_a_merged_prior(answers: Answers) -> None:
    found = numbers(answers, "our_merge")
    assert found["error"] <= EXACT and found["saved"] <= EXACT, found
    assert found["differs"] > 1e-3 and found["a stays"] == 0, found
