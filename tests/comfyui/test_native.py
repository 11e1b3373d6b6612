"""Our parts as ComfyUI's MODEL, VAE and CLIP, under ComfyUI's own nodes.

Needs a ComfyUI in COMFYUI_DIR and COMFYUI_PYTHON; see `native_runner.py` for what each case does.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from comfyui_wuerstchen.wuerstchen_core.checkpoints import save_network

from ..checkpoints.tiny import networks, write_published
from ..paths import ROOT
from ..v1.tiny import write_published as write_v1
from .conftest import PACK, Install, new_base

pytestmark = [pytest.mark.comfyui, pytest.mark.slow]

RUNNER = Path(__file__).with_name("native_runner.py")
EXACT = 1e-5  # relative to the largest value
Answers = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def answers(install: Install, tmp_path_factory: pytest.TempPathFactory) -> Answers:
    return answered(install, tmp_path_factory)


def answered(install: Install, tmp_path_factory: pytest.TempPathFactory, *cases: str) -> Answers:
    """What the runner answers to these cases, or to all usual ones."""
    base = new_base(tmp_path_factory.mktemp("native"), PACK)
    folder = base / "models" / "wuerstchen"
    for name in ("tiny", "tiny-2"):
        write_published(folder / name, tmp_path_factory.mktemp("tokenizer"))
    write_v1(folder / "wuerstchen-v1", tmp_path_factory.mktemp("tokenizer"))
    other = networks()["stage_c"]
    with torch.no_grad():
        for value in other.parameters():
            value.mul_(0.8)
    save_network(other, folder / "tiny-2" / "wuerstchen-prior" / "prior", torch.float32)
    command = [install.python, str(RUNNER), str(install.checkout), str(base), *cases]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, cwd=base)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((base / "answers.json").read_text(encoding="utf-8"))
    print(json.dumps({k: v for k, v in found.items() if k != "declarations"}, indent=1))
    return found


def numbers(answers: Answers, case: str) -> dict[str, Any]:
    found = answers[case]
    assert "Traceback" not in str(found.get("error", "")), found["error"]
    return found


def test_help_and_locale_say_what_the_nodes_declare(answers: Answers) -> None:
    said = json.loads((ROOT / "locales" / "en" / "nodeDefs.json").read_text(encoding="utf-8"))
    for node_id, declared in numbers(answers, "declarations").items():
        assert said[node_id] == declared
        assert (ROOT / "web" / "docs" / f"{node_id}.md").is_file()


def test_our_nodes_give_what_plain_python_gives(answers: Answers) -> None:
    found = numbers(answers, "plain_python")
    assert all(error <= 1e-4 for error in found.values()), found


def test_sampler_custom_gives_what_our_sampler_gives(answers: Answers) -> None:
    found = numbers(answers, "reference_sampler")
    assert all(error <= EXACT for error in found.values()), found
    assert numbers(answers, "custom_advanced")["error"] <= EXACT


def test_a_walk_in_two_halves(answers: Answers) -> None:
    found = numbers(answers, "in_two_halves")
    assert found["euler"] <= EXACT and found["reference finite"], found
    assert numbers(answers, "ksampler_advanced")["error"] <= EXACT


def test_the_stock_schedule_comes_near_ours(answers: Answers) -> None:
    assert numbers(answers, "near_our_ddim")["error"] < 0.03


def test_every_stock_sampler_and_scheduler_runs(answers: Answers) -> None:
    found = numbers(answers, "stock_samplers")
    assert len(found) > 70
    assert not [name for name, good in found.items() if not good]


def test_stage_b(answers: Answers) -> None:
    found = numbers(answers, "stage_b")
    for name in ("without text", "with text", "stock conditioning"):
        assert found[name] <= EXACT, found
    assert found["keeps the size"] and found["euler finite"]


def test_lora(answers: Answers) -> None:
    found = numbers(answers, "lora")
    assert found["patched"] == 1
    assert found["strength 1"] > 1e-3
    for name in ("strength 0", "our sampler after it", "unpatched again"):
        assert found[name] <= EXACT, found


def test_merged_priors_are_their_mean(answers: Answers) -> None:
    found = numbers(answers, "merge")
    assert found["error"] <= EXACT and found["differs"] > 1e-3, found


def test_inpainting_keeps_what_is_masked(answers: Answers) -> None:
    found = numbers(answers, "inpainting")
    for sampler in ("euler", "reference"):
        assert found[f"{sampler} kept"] <= EXACT, found
        assert found[f"{sampler} made"] > 1e-2, found


def test_patches_of_guidance_work_and_those_of_layers_are_refused(answers: Answers) -> None:
    found = numbers(answers, "patches")
    assert found["RescaleCFG"] > 1e-3
    for node in ("FreeU_V2", "PerturbedAttentionGuidance"):
        assert "patch" in found[node] and "remove" in found[node], found


def test_stage_a(answers: Answers) -> None:
    found = numbers(answers, "vae")
    assert found["decode"] <= EXACT and found["encode"] <= EXACT, found
    assert found["tiled"] < 0.01, found
    assert found["encode tiled finite"] and found["same weights"]
    assert found["share of ComfyUI's estimate"] < 0.1, found


def test_text_encoders(answers: Answers) -> None:
    found = numbers(answers, "clip")
    for name, error in found.items():
        if name.endswith(("weighted", "embedding")):
            assert error > 1e-3, (name, error)
        else:
            assert error <= 1e-4, (name, error)


def test_prompts_say_what_they_say_to_comfyui(answers: Answers) -> None:
    found = numbers(answers, "prompts")
    assert all(error <= EXACT for error in found.values()), found


def test_memory_is_counted_and_freed(answers: Answers) -> None:
    found = numbers(answers, "memory")
    for name in ("is loaded", "unloaded", "same weights", "its estimate is the model's"):
        assert found[name], (name, found)
    assert found["same after reload"] == 0
    assert 1 <= found["counted over real"] < 1.2, found  # with the schedule's tables


def test_weights_in_other_dtypes(answers: Answers) -> None:
    found = numbers(answers, "manual_cast")
    assert found["bfloat16 stored"] == "torch.bfloat16"
    assert found["float8 stored"] == "torch.float8_e4m3fn"
    for name, near in (("bfloat16", 0.1), ("float8", 1.0)):
        assert found[f"{name} head"] == found[f"{name} head computes in"] == "torch.float32"
        assert 0 < found[f"{name} ours"] < near, found
        assert found[f"{name} native"] < 0.02, found


def test_layers_that_are_cast_when_they_run(answers: Answers) -> None:
    found = numbers(answers, "partly_loaded")
    for name in ("plain", "with a LoRA"):
        assert found[f"{name} low"] and found[name] <= EXACT, found


def test_previews_show_our_colours(answers: Answers) -> None:
    found = numbers(answers, "preview_colours")
    assert all(difference <= 1.01 for difference in found.values()), found  # of 255


def test_interrupt(answers: Answers) -> None:
    found = numbers(answers, "interrupt")
    assert found["runs again"]
    for name in ("KSampler", "reference", "ours"):
        assert found[name] in (3, 4), found


def test_what_does_not_fit_is_said(answers: Answers) -> None:
    found = numbers(answers, "wrong_wires")
    words = {
        "text": "Stage C reads",
        "no stage c": "Würstchen Stage B Conditioning",
        "size": "32×32 cells",
        "cells": "multiples of 3",
    }
    for name, expected in words.items():
        assert found[name].startswith("WireError") and expected in found[name], found[name]


def test_linears_in_8_bits(answers: Answers) -> None:
    found = numbers(answers, "stored_small")
    assert "refused" not in found["float8"]
    for storage, small in found.items():
        if "refused" in small:  # an older ComfyUI, which says so
            assert storage == "int8" and "update it" in small["refused"]
            continue
        assert small["bytes"] < 0.4 and small["low"], small
        assert 0 < small["stage c"] < 0.1 and 0 < small["stage b"] < 0.2, small
        # int8 layers round what goes in as well, which makes more of rounding.
        assert small["native"] < (0.05 if storage == "int8" else 1e-4), small
        assert small["with a LoRA"] > 0.01 and small["unpatched again"] <= EXACT, small
        assert small["in part"] <= EXACT, small


def test_compiled_blocks(answers: Answers) -> None:
    found = numbers(answers, "compiled_blocks")
    assert found["blocks"] and found["low"] and found["heard"] == [], found
    for name in ("ours", "native", "with a LoRA", "plain after it", "in part"):
        assert found[name] <= 10 * EXACT, (name, found)


def test_switches_that_need_no_weights_of_their_own(answers: Answers) -> None:
    found = numbers(answers, "shared_weights")
    assert found["unread"] and found["shared"]
    assert 0 < found["guided"] < found["calls"] < 8, found


def test_a_stage_that_is_not_wired_says_so(answers: Answers) -> None:
    found = numbers(answers, "unwired")
    for stage in ("stage_c", "stage_b", "stage_a"):
        assert found[stage].startswith(f"WireError: `{stage}` of Würstchen Optimize"), found
