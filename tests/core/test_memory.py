"""Batches by memory: what is free, what is needed, and running in parts."""

from __future__ import annotations

import subprocess
import sys
from collections import deque
from pathlib import Path

import pytest
import torch

from comfyui_wuerstchen.wuerstchen_core.generate import (
    SamplerSettings,
    decode_pixels,
    sample_stage_b,
    sample_stage_c,
)
from comfyui_wuerstchen.wuerstchen_core.memory import (
    free_bytes,
    free_in_cgroups,
    needed,
    samples_at_once,
    strip_rows,
)
from comfyui_wuerstchen.wuerstchen_core.noise import SampleNoise
from comfyui_wuerstchen.wuerstchen_core.residency import place
from comfyui_wuerstchen.wuerstchen_core.sampling import Callback, StepInfo
from comfyui_wuerstchen.wuerstchen_core.stage_a import StageA, StageAConfig
from comfyui_wuerstchen.wuerstchen_core.stage_b import StageB, StageBConfig
from comfyui_wuerstchen.wuerstchen_core.stage_c import StageC, StageCConfig

from ..paths import ROOT
from ..peak_memory import peak_bytes
from ..reference.named_weights import tamed

CPU = torch.device("cpu")


def stage_c(width: int = 64) -> StageC:
    network = tamed(StageC(StageCConfig(c=width, depth=2, nhead=width // 64, c_cond=32)))
    assert isinstance(network, StageC)
    return network


def stage_b(scale: int = 1) -> StageB:
    config = StageBConfig(
        c_hidden=(20 * scale, 40 * scale, 80 * scale, 80 * scale),
        nhead=(-1, scale, scale, scale),
        c_cond=32,
        clip_embd=32,
    )
    network = tamed(StageB(config))
    assert isinstance(network, StageB)
    return network


def test_what_is_free_is_some_of_this_machine() -> None:
    free = free_bytes(CPU)
    assert free is not None and 0 < free < 2**50


def test_containers_limit_what_is_free(tmp_path: Path) -> None:
    """Both versions of control groups, the group's own limit and those above it."""
    files = {
        "app/job/memory.max": "max",
        "app/job/memory.current": "700",
        "app/job/memory.stat": "anon 500\ninactive_file 200",
        "app/memory.max": "3000",
        "app/memory.current": "1000",
        "app/memory.stat": "anon 600\ninactive_file 400",
        "memory/app/job/memory.limit_in_bytes": "5000",
        "memory/app/job/memory.usage_in_bytes": "4000",
        "memory/app/job/memory.stat": "total_inactive_file 100",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    member = tmp_path / "cgroup"
    member.write_text("0::/app/job\n")
    assert list(free_in_cgroups(tmp_path, member)) == [2400]
    member.write_text("3:cpuset:/\n4:memory:/app/job\n")
    assert list(free_in_cgroups(tmp_path, member)) == [1100]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_what_a_stage_is_said_to_need_is_enough_and_not_far_off(dtype: torch.dtype) -> None:
    walk = [1 - i / 10 for i in range(11)]
    c, b = place(stage_c(256), CPU, dtype), place(stage_b(4), CPU, dtype)
    a = place(StageA(StageAConfig(embed_dim=32)), CPU, dtype)
    text, embedding = torch.randn(2, 77, 32, dtype=dtype), torch.randn(1, 16, 12, 12)
    x = {"c": torch.randn(2, 16, 24, 24), "b": torch.randn(1, 4, 128, 128)}
    latent, pixels = torch.zeros(1, 4, 128, 128), torch.zeros(1, 3, 512, 512)
    rows = strip_rows(a, 128)
    runs = {
        "Stage C": (c, x["c"], lambda: c(x["c"], 1.0, c.prepare(text, walk))),
        "Stage B": (
            b,
            x["b"],
            lambda: b(x["b"], 1.0, b.prepare(embedding, (128, 128), text[:1], walk)),
        ),
        "decode": (a, latent, lambda: deque(a.decode_strips(latent, rows), maxlen=0)),
        "encode": (a, latent, lambda: deque(a.encode_strips(pixels, rows), maxlen=0)),
    }
    for name, (network, shape_of, run) in runs.items():
        share = peak_bytes(run) / needed(network, shape_of.shape)
        assert 0.4 <= share <= 1, (name, share)


def test_as_many_samples_as_fit() -> None:
    network, shape = stage_c(), (8, 16, 24, 24)
    one = needed(network, (1, *shape[1:]))
    assert samples_at_once(network, shape, limit=3 * one) == 3
    assert samples_at_once(network, shape, branches=2, limit=7 * one) == 3
    assert samples_at_once(network, shape, limit=0) == 1
    assert samples_at_once(network, shape, limit=100 * one) == 8


SETTINGS = SamplerSettings(steps=3, cfg=4.0)


def run_stage_c(network: StageC, callback: Callback) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    positive, negative = torch.randn(5, 77, 32, generator=generator), torch.zeros(1, 77, 32)
    latent, noise = torch.zeros(5, 16, 12, 12), SampleNoise(range(5))
    return sample_stage_c(network, positive, negative, latent, noise, SETTINGS, callback)


def run_stage_b(network: StageB, callback: Callback) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    embedding = torch.randn(5, 16, 3, 3, generator=generator)
    text = torch.randn(1, 77, 32, generator=generator)
    noise = SampleNoise(range(5))
    return sample_stage_b(network, embedding, text, text, None, noise, SETTINGS, callback)


@pytest.mark.parametrize(
    "network, run, shape",
    [(stage_c(), run_stage_c, (2, 16, 12, 12)), (stage_b(), run_stage_b, (2, 4, 32, 32))],
    ids=["stage C", "stage B"],
)
def test_a_batch_in_parts_is_the_same_batch(network, run, shape) -> None:
    steps: list[tuple[int, int, int]] = []

    def note(info: StepInfo) -> None:
        steps.append((info.step, info.steps, len(info.x0)))

    whole = run(network, note)
    network.free_memory = lambda: 2 * needed(network, shape)  # as a host says it
    parts = run(network, note)
    assert steps[:3] == [(0, 3, 5), (1, 3, 5), (2, 3, 5)]
    assert steps[3:] == [(i, 9, 2 if i < 6 else 1) for i in range(9)]
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-4)


def too_much() -> None:
    torch.empty(2**55, dtype=torch.uint8)


def test_running_out_of_memory_halves_the_part() -> None:
    network, tried = stage_c(), []

    def fails_above_two(info: StepInfo) -> None:
        tried.append((info.step, info.steps, len(info.x0)))
        if len(info.x0) > 2:
            too_much()

    whole = run_stage_c(network, lambda info: None)
    parts = run_stage_c(network, fails_above_two)
    assert tried == [(0, 3, 5), (0, 6, 3), *((i, 9, 2 if i < 6 else 1) for i in range(9))]
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-4)
    with pytest.raises(RuntimeError, match="memory"):
        run_stage_c(network, lambda info: too_much())


def test_running_out_of_memory_makes_smaller_strips() -> None:
    network = tamed(StageA(StageAConfig(embed_dim=32, bottleneck_blocks=2)))
    assert isinstance(network, StageA)
    latent, done = torch.randn(2, 4, 200, 64), [0]

    def fails_on_tall_strips(now: int, total: int) -> None:
        height, done[0] = now - done[0], now
        if height > 100:
            done[0] = 0
            too_much()

    whole = decode_pixels(network, latent)
    torch.testing.assert_close(decode_pixels(network, latent, fails_on_tall_strips), whole)


NARROW = """
import resource
import torch
from tests.core.test_memory import SampleNoise, SamplerSettings, sample_stage_c, stage_c

torch.set_num_threads(1)
network, sizes = stage_c(), []
network.free_memory = lambda: 0  # one at a time, so that little memory is left behind

def run():
    latent, text = torch.zeros(32, 16, 48, 48), torch.zeros(1, 77, 32)
    settings, noise = SamplerSettings(steps=1, cfg=0), SampleNoise(range(32))
    count = lambda info: sizes.append(len(info.x0))
    return sample_stage_c(network, text, None, latent, noise, settings, count)

alone = run()
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + 120 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
network.free_memory = lambda: 2**60  # nobody foresees that it will not fit
sizes.clear()
parts = run()
print(len(parts), max(sizes), (parts - alone).abs().max().item())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits a process's memory so")
def test_a_batch_beyond_the_memory_of_the_process() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", NARROW], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    count, largest, error = ran.stdout.split()
    assert int(count) == 32 > int(largest)
    assert float(error) <= 0.02  # of values around 100
