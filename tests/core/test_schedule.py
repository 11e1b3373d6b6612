"""Schedules and samplers against diffusers' scheduler."""

import math

import pytest
import torch
from diffusers import DDPMWuerstchenScheduler
from diffusers.pipelines.deprecated.wuerstchen.pipeline_wuerstchen_prior import (
    DEFAULT_STAGE_C_TIMESTEPS,
)
from torch import Tensor

from comfyui_wuerstchen.wuerstchen_core.errors import SettingError
from comfyui_wuerstchen.wuerstchen_core.layers import Times
from comfyui_wuerstchen.wuerstchen_core.noise import SampleNoise
from comfyui_wuerstchen.wuerstchen_core.sampling import SAMPLERS, StepInfo, sample, start_from
from comfyui_wuerstchen.wuerstchen_core.schedule import (
    SCHEDULERS,
    add_noise,
    alpha_bar,
    alpha_bar_of,
    times,
)

SHAPE = (4, 8, 8)


def gaussian_eps(x: Tensor, t: Times) -> Tensor:
    """The exact eps of data that is N(0.3, 0.5²), so every sampler has one right answer."""
    signal = alpha_bar_of(torch.as_tensor(t)).view(-1, 1, 1, 1)
    variance = signal * 0.25 + 1 - signal
    return (1 - signal).sqrt() * (x - signal.sqrt() * 0.3) / variance


def test_default_times_are_the_published_list() -> None:
    published = torch.tensor([float(t) for t in DEFAULT_STAGE_C_TIMESTEPS])
    assert torch.equal(torch.tensor(times("default", 29)), published)


def test_notebook_times_are_20_plus_10() -> None:
    expected = [1 - i / 60 for i in range(21)] + [2 / 3 - i / 15 for i in range(1, 11)]
    assert times("notebook", 30) == pytest.approx(expected)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 29, 200])
@pytest.mark.parametrize("denoise", [1.0, 0.75, 0.31, 0.01])
def test_times_have_the_asked_length_and_descend(
    scheduler: str, steps: int, denoise: float
) -> None:
    found = times(scheduler, steps, denoise)
    assert len(found) == steps + 1 and found[-1] == 0
    assert all(a > b for a, b in zip(found, found[1:], strict=False))
    if denoise == 1:
        assert found[0] == 1


def test_times_start_at_the_strength() -> None:
    assert times("uniform", 30, 0.5)[0] == pytest.approx(0.5)
    assert times("uniform", 30, 0.0) == []


@pytest.mark.parametrize(
    ("scheduler", "steps", "denoise"),
    [("karras", 10, 1.0), ("default", 0, 1.0), ("default", 10, 1.1), ("default", 10, -0.1)],
)
def test_bad_settings_are_named(scheduler: str, steps: int, denoise: float) -> None:
    with pytest.raises(SettingError):
        times(scheduler, steps, denoise)


def test_alpha_bar_equals_diffusers() -> None:
    reference = DDPMWuerstchenScheduler()
    t = torch.linspace(0, 1, 501)
    expected = reference._alpha_cumprod(t, "cpu")
    torch.testing.assert_close(alpha_bar_of(t), expected)
    ours = torch.tensor([alpha_bar(value) for value in t.tolist()])
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-6)
    x, noise = torch.randn(501, *SHAPE), torch.randn(501, *SHAPE)
    torch.testing.assert_close(add_noise(x, noise, t), reference.add_noise(x, noise, t))


@pytest.mark.parametrize("steps", [1, 4, 29, 60])
def test_ddpm_equals_diffusers(steps: int) -> None:
    reference = DDPMWuerstchenScheduler()
    reference.set_timesteps(timesteps=times("default", steps))
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(1, *SHAPE, generator=generator)
    for t in reference.timesteps[:-1]:
        eps = gaussian_eps(x, t.expand(1))
        x = reference.step(eps, t.expand(1), x, generator=generator).prev_sample
    noise = SampleNoise([7])
    ours = sample(gaussian_eps, noise.draw(SHAPE), times("default", steps), "ddpm", noise)
    torch.testing.assert_close(ours, x, rtol=1e-4, atol=1e-5)


def test_ddim_equals_its_formula() -> None:
    """x' = sqrt(a') x0 + sqrt(1 - a') eps, one step by hand."""
    x = torch.randn(1, *SHAPE)
    ours = sample(gaussian_eps, x, [0.8, 0.5], "ddim", SampleNoise([0]))
    a, b = alpha_bar(0.8), alpha_bar(0.5)
    eps = gaussian_eps(x, torch.tensor([0.8]))
    x0 = (x - math.sqrt(1 - a) * eps) / math.sqrt(a)
    torch.testing.assert_close(ours, math.sqrt(b) * x0 + math.sqrt(1 - b) * eps)


def test_2m_is_second_order() -> None:
    """Halving the steps quarters the error of 2M and halves that of DDIM, on a smooth stretch."""
    x = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(0))

    def walk(name: str, steps: int) -> Tensor:
        path = [0.9 - 0.7 * i / steps for i in range(steps + 1)]
        return sample(gaussian_eps, x, path, name, SampleNoise([0]))

    truth = walk("ddim", 8000)
    errors = {
        name: [(walk(name, n) - truth).abs().max().item() for n in (20, 40)]
        for name in ("ddim", "dpmpp_2m")
    }
    assert errors["dpmpp_2m"][1] < 0.1 * errors["ddim"][1]
    assert errors["dpmpp_2m"][0] / errors["dpmpp_2m"][1] > 3
    assert 1.6 < errors["ddim"][0] / errors["ddim"][1] < 2.4


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_reach_the_distribution(name: str) -> None:
    noise = SampleNoise(range(64))
    found = sample(gaussian_eps, noise.draw(SHAPE), times("uniform", 60), name, noise)
    assert found.mean().item() == pytest.approx(0.3, abs=0.02)
    assert found.std().item() == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_batch_equals_its_singles(name: str) -> None:
    def run(seeds: list[int]) -> Tensor:
        noise = SampleNoise(seeds)
        return sample(gaussian_eps, noise.draw(SHAPE), times("default", 8), name, noise)

    assert torch.equal(run([3, 4, 5])[1:2], run([4]))


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_callback_sees_every_step_and_can_cancel(name: str) -> None:
    seen: list[StepInfo] = []

    def record(info: StepInfo) -> None:
        seen.append(info)
        if info.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample(
            gaussian_eps,
            torch.zeros(1, *SHAPE),
            times("uniform", 5),
            name,
            SampleNoise([0]),
            record,
        )
    assert [(i.step, i.steps) for i in seen] == [(0, 5), (1, 5), (2, 5)]
    assert seen[0].t == 1 and seen[0].t_next == pytest.approx(0.8)
    assert seen[0].x0.shape == (1, *SHAPE)


def test_unknown_sampler_and_bad_times_are_named() -> None:
    x, noise = torch.zeros(1, *SHAPE), SampleNoise([0])
    with pytest.raises(SettingError, match="euler"):
        sample(gaussian_eps, x, [1.0, 0.0], "euler", noise)
    for bad in ([1.0], [0.0, 1.0], [1.2, 0.0], [0.5, 0.5]):
        with pytest.raises(SettingError, match="descending"):
            sample(gaussian_eps, x, bad, "ddpm", noise)


def test_start_from_a_latent() -> None:
    latent, noise = torch.randn(1, *SHAPE), torch.randn(1, *SHAPE)
    assert torch.equal(start_from(latent, 1.0, noise), noise)
    assert torch.equal(start_from(None, 0.4, noise), noise)
    expected = math.sqrt(alpha_bar(0.4)) * latent + math.sqrt(1 - alpha_bar(0.4)) * noise
    torch.testing.assert_close(start_from(latent, 0.4, noise), expected)
