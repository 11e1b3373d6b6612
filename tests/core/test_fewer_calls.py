"""Guidance over a part of the steps and skipped steps: fewer calls of the networks."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from comfyui_wuerstchen.wuerstchen_core.generate import (
    SamplerSettings,
    sample_stage_b,
    sample_stage_c,
)
from comfyui_wuerstchen.wuerstchen_core.layers import Times
from comfyui_wuerstchen.wuerstchen_core.noise import SampleNoise
from comfyui_wuerstchen.wuerstchen_core.sampling import SAMPLERS, Callback, StepInfo, sample
from comfyui_wuerstchen.wuerstchen_core.schedule import SCHEDULERS, alpha_bar, thinned, times
from comfyui_wuerstchen.wuerstchen_core.stage_b import StageB
from comfyui_wuerstchen.wuerstchen_core.stage_c import StageC, to_embedding

from ..checkpoints.tiny import DECODER_WIDTH, PRIOR_WIDTH, STAGE_B, STAGE_C, with_weights

GUIDED = SamplerSettings(8, 3.0, "ddim")


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def tamed(network: torch.nn.Module, head: torch.nn.Module) -> torch.nn.Module:
    """Small outputs: those of random weights would explode on the way down."""
    for value in head.parameters():
        value.data.mul_(0.1)
    return network


@pytest.fixture(scope="module")
def stage_c() -> StageC:
    network = with_weights(StageC(STAGE_C))
    assert isinstance(network, StageC)
    tamed(network, network.out)
    return network


@pytest.fixture(scope="module")
def stage_b() -> StageB:
    network = with_weights(StageB(STAGE_B))
    assert isinstance(network, StageB)
    tamed(network, network.clf)
    return network


# Each runs a stage for seeds, as (settings, seeds, callback) -> latents.
Run = Callable[[SamplerSettings, list[int], Callback | None], Tensor]


@pytest.fixture(params=["C", "C, texts of two lengths", "B", "B with texts", "B, one text"])
def stage(request: pytest.FixtureRequest, stage_c: StageC, stage_b: StageB) -> tuple[str, Run]:
    def texts(seeds: list[int], tokens: int, width: int) -> Tensor:
        return torch.cat([random(1, tokens, width, seed=seed) for seed in seeds])

    def run_c(settings: SamplerSettings, seeds: list[int], callback: Callback | None) -> Tensor:
        other = 9 if "two lengths" in request.param else 7
        latent = to_embedding(texts(seeds, 16 * 6, 6).view(-1, 16, 6, 6))
        negative = random(1, other, PRIOR_WIDTH, seed=99)
        positive = texts(seeds, 7, PRIOR_WIDTH)
        return sample_stage_c(
            stage_c, positive, negative, latent, SampleNoise(seeds), settings, callback
        )

    def run_b(settings: SamplerSettings, seeds: list[int], callback: Callback | None) -> Tensor:
        embedding = texts(seeds, 16 * 3, 3).view(-1, 16, 3, 3)
        latent = 0.4 * texts(seeds, 4 * 32, 32).view(-1, 4, 32, 32)
        positive = texts(seeds, 5, DECODER_WIDTH) if "text" in request.param else None
        negative = random(1, 5, DECODER_WIDTH, seed=99) if "texts" in request.param else None
        return sample_stage_b(
            stage_b, embedding, positive, negative, latent, SampleNoise(seeds), settings, callback
        )

    return request.param, run_c if request.param.startswith("C") else run_b


@pytest.fixture
def rows(stage_c: StageC, stage_b: StageB):
    """The samples that went through either network, call by call."""
    seen: list[int] = []
    hooks = [
        network.register_forward_pre_hook(lambda network, inputs: seen.append(len(inputs[0])))
        for network in (stage_c, stage_b)
    ]
    yield seen
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize(("end", "guided_steps"), [(1.0, 8), (0.66, 5), (0.5, 4), (0.0, 0)])
def test_past_its_end_guidance_costs_nothing(
    stage: tuple[str, Run], rows: list[int], end: float, guided_steps: int
) -> None:
    name, run = stage
    run(replace(GUIDED, guidance_end=end), [1, 2], None)
    guided_step = [2, 2] if name in ("C, texts of two lengths", "B, one text") else [4]
    assert rows == guided_step * guided_steps + [2] * (8 - guided_steps)


def test_up_to_its_end_guidance_is_the_same(stage: tuple[str, Run]) -> None:
    _, run = stage
    whole: list[StepInfo] = []
    half: list[StepInfo] = []
    run(GUIDED, [1, 2], whole.append)
    run(replace(GUIDED, guidance_end=0.5), [1, 2], half.append)
    same = [torch.equal(a.x0, b.x0) for a, b in zip(whole, half, strict=True)]
    assert same == [True] * 4 + [False] * 4


def test_guidance_that_ends_at_once_is_none(stage: tuple[str, Run]) -> None:
    _, run = stage
    found = run(replace(GUIDED, guidance_end=0.0), [1, 2], None)
    expected = run(replace(GUIDED, cfg=1.0), [1, 2], None)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)


@torch.no_grad()
def test_defaults_are_plain_guidance_on_all_times(stage_c: StageC) -> None:
    settings = SamplerSettings(6, 3.0)
    positive, negative = random(2, 7, PRIOR_WIDTH), random(2, 7, PRIOR_WIDTH, seed=1)
    latent = torch.zeros(2, 16, 6, 6)
    found = sample_stage_c(stage_c, positive, negative, latent, SampleNoise([3, 4]), settings)
    walk, noise = times("default", 6), SampleNoise([3, 4])
    context = stage_c.prepare(torch.cat([negative, positive]), walk)

    def guided(x: Tensor, t: float) -> Tensor:
        unconditional, conditional = stage_c(torch.cat([x, x]), t, context).chunk(2)
        return torch.lerp(unconditional, conditional, 3.0)

    expected = sample(guided, noise.draw((16, 6, 6)), walk, "ddpm", noise)
    torch.testing.assert_close(found, to_embedding(expected), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("sampler_name", SAMPLERS)
@pytest.mark.parametrize(("end", "cache", "denoise"), [(1.0, 0.0, 0.6), (0.5, 0.3, 1.0)])
def test_a_batch_equals_its_singles(
    stage: tuple[str, Run], sampler_name: str, end: float, cache: float, denoise: float
) -> None:
    _, run = stage
    settings = SamplerSettings(
        8, 3.0, sampler_name, denoise=denoise, step_cache=cache, guidance_end=end
    )
    batch = run(settings, [3, 4, 5], None)
    assert batch.isfinite().all()
    torch.testing.assert_close(batch[1:2], run(settings, [4], None), rtol=1e-3, atol=1e-3)


def test_the_step_cache_skips_calls(stage: tuple[str, Run], rows: list[int]) -> None:
    _, run = stage
    seen: list[StepInfo] = []
    settings = SamplerSettings(29, 1.0, step_cache=0.1)
    run(settings, [1], seen.append)
    assert len(rows) == len(seen) == len(settings.walk) - 1 < 20
    assert {info.steps for info in seen} == {len(seen)}


def angle(t: float) -> float:
    return math.acos(math.sqrt(alpha_bar(t)))


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("steps", [1, 2, 3, 12, 29, 300])
def test_thinned_times(scheduler: str, steps: int) -> None:
    walk = times(scheduler, steps)
    assert thinned(walk, 0.0) == walk
    for change in (0.02, 0.1, 0.5, 1.0):
        kept = thinned(walk, change)
        assert kept[0] == walk[0] and kept[-2:] == walk[-2:]
        assert set(kept) <= set(walk) and kept == sorted(kept, reverse=True)
        moved = [angle(a) - angle(b) for a, b in zip(kept, kept[1:-2], strict=False)]
        assert all(value >= change for value in moved)
    assert thinned([], 0.5) == []


def test_to_skip_a_step_is_to_use_its_result_again() -> None:
    """With the last eps in place of a call, DDIM walks to the same x in more steps."""
    walk = times("default", 29)
    kept = thinned(walk, 0.1)
    last: list[Tensor] = []

    def model(x: Tensor, t: Times) -> Tensor:
        return (3 * x).sin() * (1 + torch.as_tensor(t))

    def reusing(x: Tensor, t: Times) -> Tensor:
        if t in kept:
            last[:] = [model(x, t)]
        return last[0]

    x = random(1, 4, 8, 8).double()
    found = sample(model, x, kept, "ddim", SampleNoise([0]))
    expected = sample(reusing, x, walk, "ddim", SampleNoise([0]))
    torch.testing.assert_close(found, expected)
