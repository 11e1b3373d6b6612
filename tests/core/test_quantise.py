"""Weights in 8 bits: as small as they promise, and close to what they were."""

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from comfyui_wuerstchen.wuerstchen_core.layers import TimestepBlock
from comfyui_wuerstchen.wuerstchen_core.optimize import Optimization
from comfyui_wuerstchen.wuerstchen_core.pipeline import Pipeline
from comfyui_wuerstchen.wuerstchen_core.quantise import quantiser
from comfyui_wuerstchen.wuerstchen_core.residency import (
    Network,
    float32_modules,
    place,
    weight_bytes,
)
from comfyui_wuerstchen.wuerstchen_core.stage_b import StageB, StageBConfig
from comfyui_wuerstchen.wuerstchen_core.stage_c import StageC, StageCConfig
from comfyui_wuerstchen.wuerstchen_core.training.demo.captions import canonical
from comfyui_wuerstchen.wuerstchen_core.training.demo.checker import check
from comfyui_wuerstchen.wuerstchen_core.training.demo.scenes import all_attributes, is_held_out

from ..checkpoints.tiny import PRIOR_WIDTH, networks, output, with_weights
from ..paths import DEMO, ROOT

CPU = torch.device("cpu")
STORAGES = ("int8", "float8")
# Relative error of the heads; dB of the demo's pictures, 38 and 30 measured, the worst of eight.
MOST_ERROR = {"int8": 0.03, "float8": 0.08}
LEAST_DECIBELS = {"int8": 33, "float8": 26}

PUBLISHED_C = StageCConfig(c=1536, c_cond=1280, depth=32, nhead=24)


def quantised(
    network: Network, storage: str, dtype: torch.dtype = torch.float32, device: torch.device = CPU
) -> Network:
    return place(network, device, dtype, then=quantiser(network, storage))


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("part", ["stage_c", "stage_b"])
def test_published_sizes_need_half_of_bfloat16(part: str, storage: str) -> None:
    """One byte a weight and few more a channel; without memory for the weights themselves."""
    with torch.device("meta"):
        network = StageC(PUBLISHED_C) if part == "stage_c" else StageB(StageBConfig(), folded=True)
    elements = sum(p.numel() for p in network.parameters())
    assert weight_bytes(network) == 4 * elements
    quantised(network, storage, torch.bfloat16, torch.device("meta"))
    assert 1.0 * elements < weight_bytes(network) < 1.05 * elements


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("part", ["stage_c", "stage_b"])
def test_what_must_stay_exact_stays(part: str, storage: str) -> None:
    network = networks()[part]
    kept = [*float32_modules(network), *(m for m in network.modules() if type(m) is TimestepBlock)]
    before = [tensor for module in kept for tensor in module.parameters()]
    quantised(network, storage, torch.bfloat16)
    after = [tensor for module in kept for tensor in module.parameters()]
    assert len(before) == len(after) > 4
    assert all(old is new for old, new in zip(before, after, strict=True))
    assert {id(t) for m in float32_modules(network) for t in m.parameters()} == {
        id(t) for t in after if t.dtype == torch.float32
    }
    assert network.dtype == torch.bfloat16
    changed = [m for m in network.modules() if hasattr(getattr(m, "weight", None), "qdata")]
    assert changed
    assert all(isinstance(m, nn.Linear) and m.weight.dtype == torch.bfloat16 for m in changed)


def wide_stage_c() -> StageC:
    network = with_weights(StageC(StageCConfig(c=256, c_cond=PRIOR_WIDTH, depth=4, nhead=4)))
    return network  # type: ignore[return-value]


@pytest.mark.parametrize("storage", STORAGES)
def test_close_to_what_it_was(storage: str) -> None:
    expected, found = output(wide_stage_c()), output(quantised(wide_stage_c(), storage))
    error = ((found - expected).norm() / expected.norm()).item()
    assert 0 < error < MOST_ERROR[storage]


def to_pixels(pictures: list) -> Tensor:
    """N×3×H×W in [0, 1]."""
    bytes_ = np.stack([np.asarray(picture) for picture in pictures])
    return torch.from_numpy(bytes_).movedim(-1, 1) / 255


@pytest.fixture(scope="module")
def demo() -> tuple[list[str], Tensor]:
    """Prompts, and the pictures that the demo makes of them as it is loaded."""
    wanted = random.Random(5).sample([a for a in all_attributes() if is_held_out(a)], 8)
    prompts = [canonical(a) for a in wanted]
    return prompts, paint(prompts, "as_loaded")


def paint(prompts: list[str], storage: str) -> Tensor:
    pipeline = Pipeline.from_folder(DEMO, "float32", "cpu", Optimization(storage=storage))
    options = {"width": 256, "height": 256, "seed": 100, "cfg": 2}
    return to_pixels(pipeline(prompts, steps=12, decoder_steps=6, **options))


@pytest.mark.parametrize("storage", STORAGES)
def test_the_demo_paints_the_same(demo: tuple[list[str], Tensor], storage: str) -> None:
    prompts, expected = demo
    found = paint(prompts, storage)
    decibels = -10 * (found - expected).square().mean(dim=(1, 2, 3)).log10()
    assert (decibels > LEAST_DECIBELS[storage]).all(), decibels
    same = [a == b for a, b in zip(check(found), check(expected), strict=True)]
    assert sum(same) >= len(same) - 1, same


PROGRAM = """
from comfyui_wuerstchen.wuerstchen_core.quantise import quantiser
from comfyui_wuerstchen.wuerstchen_core.errors import SettingError
from torch import nn
try:
    quantiser(nn.Sequential(nn.Linear(256, 256)), "int8")
except SettingError as error:
    print(error)
"""

BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torchao":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocker())
"""

OLD = """
class Int8WeightOnlyConfig:
    def __init__(self, group_size=None): ...
class Float8WeightOnlyConfig(Int8WeightOnlyConfig): ...
class PerRow: ...
def quantize_(model, config, filter_fn=None): ...
"""


def told(program: str, *paths: Path) -> str:
    path = os.pathsep.join([*map(str, paths), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": path},
        cwd=ROOT.parent,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_without_torchao_it_says_what_to_install() -> None:
    assert "pip install torchao" in told(BLOCKER + PROGRAM)


def test_an_old_torchao_is_told_to_be_old(tmp_path: Path) -> None:
    package = tmp_path / "torchao" / "quantization"
    package.mkdir(parents=True)
    (tmp_path / "torchao" / "__init__.py").touch()
    (package / "__init__.py").write_text(OLD)
    assert "--upgrade" in told(PROGRAM, tmp_path)
