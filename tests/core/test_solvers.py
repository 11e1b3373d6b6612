"""The faster samplers against diffusers' solvers and against the exact solution."""

import math
from typing import Any

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler
from torch import Tensor

from comfyui_wuerstchen.wuerstchen_core.layers import Times
from comfyui_wuerstchen.wuerstchen_core.noise import SampleNoise
from comfyui_wuerstchen.wuerstchen_core.sampling import SAMPLERS, sample
from comfyui_wuerstchen.wuerstchen_core.schedule import alpha_bar, alpha_bar_of, times

SHAPE = (4, 8, 8)

PATHS = {
    "published": times("default", 29),
    "uniform": times("uniform", 12),
    "few": times("uniform", 3),
    "one": times("uniform", 1),
    "from the middle": times("default", 9, 0.6),
    "not to the end": [0.9, 0.7, 0.65, 0.3, 0.2],
}


def two_points_eps(x: Tensor, t: Times) -> Tensor:
    """The exact eps of data that is -0.8 or 0.8, which is not linear in x."""
    signal = alpha_bar_of(torch.as_tensor(t)).view(-1, 1, 1, 1)
    x0 = 0.8 * (signal.sqrt() * 0.8 * x / (1 - signal)).tanh()
    return (x - signal.sqrt() * x0) / (1 - signal).sqrt()


def start() -> Tensor:
    return torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(0))


def scheduler_of_diffusers(name: str, path: list[float]) -> Any:
    """Its solver, set to our times' alphas; first order on the step to t = 0."""
    first_order_last = path[-1] == 0
    if name == "unipc":
        scheduler = UniPCMultistepScheduler(
            final_sigmas_type="sigma_min", lower_order_final=first_order_last
        )
    else:
        scheduler = DPMSolverMultistepScheduler(
            algorithm_type="sde-dpmsolver++" if name == "dpmpp_2m_sde" else "dpmsolver++",
            final_sigmas_type="sigma_min",
            lower_order_final=False,
            euler_at_final=first_order_last,
        )
    scheduler.set_timesteps(len(path) - 1)
    signal = torch.tensor([alpha_bar(t) for t in path], dtype=torch.float64)
    scheduler.sigmas = ((1 - signal) / signal).sqrt().float()
    scheduler.timesteps = torch.arange(len(path) - 1)
    return scheduler


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
@pytest.mark.parametrize("name", ["dpmpp_2m", "dpmpp_2m_sde", "unipc"])
def test_equals_diffusers(name: str, path: list[float]) -> None:
    scheduler = scheduler_of_diffusers(name, path)
    noise = SampleNoise([3])
    x = start()
    for i, (t, t_next) in enumerate(zip(path, path[1:], strict=False)):
        options = {}
        if name == "dpmpp_2m_sde":  # ours ends without noise at t = 0, as `ddpm` does
            fresh = noise.draw(SHAPE)
            options = {"variance_noise": fresh if t_next > 0 else torch.zeros_like(fresh)}
        x = scheduler.step(two_points_eps(x, t), i, x, **options).prev_sample
    found = sample(two_points_eps, start(), path, name, SampleNoise([3]))
    torch.testing.assert_close(found, x, rtol=1e-4, atol=1e-4)


def error_of(name: str, steps: int, truth: Tensor) -> float:
    path = [0.9 - 0.7 * i / steps for i in range(steps + 1)]
    found = sample(two_points_eps, start().double(), path, name, SampleNoise([0]))
    return (found - truth).norm().item()


def test_orders() -> None:
    """Halving the steps halves the error of a first-order solver, quarters that of 2M, and brings
    UniPC's, whose corrector is one order higher than its predictor, to an eighth."""
    path = [0.9 - 0.7 * i / 3000 for i in range(3001)]
    truth = sample(two_points_eps, start().double(), path, "unipc", SampleNoise([0]))
    ratio = {
        name: error_of(name, 40, truth) / error_of(name, 80, truth)
        for name in ("ddim", "dpmpp_2m", "unipc")
    }
    assert 1.7 < ratio["ddim"] < 2.3
    assert 3.4 < ratio["dpmpp_2m"] < 5
    assert 6 < ratio["unipc"] < 11
    assert error_of("unipc", 40, truth) < error_of("dpmpp_2m", 40, truth) / 2


def test_one_step_of_the_sde_is_ddpms() -> None:
    path = [0.8, 0.5]
    ddpm, sde = (
        sample(two_points_eps, start(), path, name, SampleNoise([5]))
        for name in ("ddpm", "dpmpp_2m_sde")
    )
    torch.testing.assert_close(sde, ddpm)


@pytest.mark.parametrize("name", SAMPLERS)
def test_times_of_equal_noise(name: str) -> None:
    """alpha_bar stands still near both ends, where steps have no length."""
    assert alpha_bar(1.0) == alpha_bar(0.997) and alpha_bar(0.0) == alpha_bar(0.001)
    rest = [0.9, 0.5, 0.2, 0.0]

    def run(path: list[float]) -> Tensor:
        return sample(two_points_eps, start(), path, name, SampleNoise([0]))

    assert run([1.0, 0.999, 0.997, *rest[:-1], 0.002, 0.001, 0.0]).isfinite().all()
    if name in ("ddim", "dpmpp_2m", "unipc"):  # the others draw noise for each step
        torch.testing.assert_close(run([1.0, 0.999, 0.997, *rest]), run([1.0, *rest]))


@pytest.mark.parametrize("name", SAMPLERS)
def test_noise_is_drawn_once_a_step_or_never(name: str) -> None:
    noise = SampleNoise([9])
    sample(two_points_eps, start(), PATHS["few"], name, noise)
    ahead = SampleNoise([9])
    for _ in range(3 if name in ("ddpm", "dpmpp_2m_sde") else 0):
        ahead.draw(SHAPE)
    assert torch.equal(noise.draw(SHAPE), ahead.draw(SHAPE))


def test_the_corrector_costs_no_call() -> None:
    calls: list[float] = []

    def counted(x: Tensor, t: Times) -> Tensor:
        calls.append(float(t))
        return two_points_eps(x, t)

    sample(counted, start(), PATHS["uniform"], "unipc", SampleNoise([0]))
    assert calls == PATHS["uniform"][:-1]
    assert math.isclose(calls[0], 1.0)
