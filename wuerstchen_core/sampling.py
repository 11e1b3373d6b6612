"""Samplers: from noise to x0 along a descending list of times.

Every sampler is a function of (eps model, x, times, noise); one callback a step carries progress,
preview and cancel. Sources: diffusers `scheduling_ddpm_wuerstchen.py`; DDIM (Song et al. 2021);
DPM-Solver++ 2M (Lu et al. 2022, algorithm 2).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import SettingError
from .guidance import Predict
from .noise import SampleNoise
from .schedule import add_noise, alpha_bar, check_times

SAMPLERS = ("ddpm", "ddim", "dpmpp_2m")


@dataclass(frozen=True)
class StepInfo:
    """What is known after one call of the model."""

    step: int  # from 0
    steps: int
    t: float  # the time this step started from
    t_next: float
    x0: Tensor  # the current estimate of the result, B×C×H×W


Callback = Callable[[StepInfo], None]  # raise from it to cancel


def start_from(latent: Tensor | None, t: float, noise: Tensor) -> Tensor:
    """Where sampling starts: pure noise, or `latent` noised to time t (image to image)."""
    if latent is None or t >= 1:
        return noise
    return add_noise(latent.to(noise), noise, torch.full((len(noise),), t, device=noise.device))


@torch.no_grad()
def sample(
    model: Predict,
    x: Tensor,
    times: Sequence[float],
    sampler_name: str,
    noise: SampleNoise,
    callback: Callback | None = None,
) -> Tensor:
    """Walks x down `times`; x: B×C×H×W float32 at times[0] -> B×C×H×W at times[-1].

    model: (x, t) -> eps. noise: drawn once a step by stochastic samplers, the last step
    included, as in the reference. Raises SettingError for an unknown sampler or bad times.
    """
    if sampler_name not in SAMPLERS:
        known = ", ".join(SAMPLERS)
        raise SettingError(f"sampler_name {sampler_name!r} is unknown; choose one of {known}.")
    walk = check_times(times)
    before: tuple[float, Tensor] | None = None  # the last step's time and x0, for 2M
    for step, (t, t_next) in enumerate(zip(walk, walk[1:], strict=False)):
        eps = model(x, t)
        signal = alpha_bar(t)
        x0 = (x - math.sqrt(1 - signal) * eps) / math.sqrt(signal)
        if callback is not None:
            callback(StepInfo(step, len(walk) - 1, t, t_next, x0))
        if sampler_name == "ddpm":
            x = _ddpm_step(x, eps, t, t_next, noise.draw(tuple(x.shape[1:])).to(x))
        elif sampler_name == "ddim":
            x = math.sqrt(alpha_bar(t_next)) * x0 + math.sqrt(1 - alpha_bar(t_next)) * eps
        else:
            x = _dpmpp_2m_step(x, x0, t, t_next, before)
            before = (t, x0)
    return x


def _ddpm_step(x: Tensor, eps: Tensor, t: float, t_next: float, noise: Tensor) -> Tensor:
    """`DDPMWuerstchenScheduler.step`: the posterior mean plus noise; none is added at t = 0."""
    signal, signal_next = alpha_bar(t), alpha_bar(t_next)
    alpha = signal / signal_next
    mean = (x - (1 - alpha) / math.sqrt(1 - signal) * eps) / math.sqrt(alpha)
    if t_next == 0:
        return mean
    return mean + math.sqrt((1 - alpha) * (1 - signal_next) / (1 - signal)) * noise


def _dpmpp_2m_step(
    x: Tensor, x0: Tensor, t: float, t_next: float, before: tuple[float, Tensor] | None
) -> Tensor:
    """One step of the second-order multistep solver for x0; first order where there is no past."""
    h = _half_log_snr(t_next) - _half_log_snr(t)
    estimate = x0
    if before is not None and h > 0:
        ratio = (_half_log_snr(t) - _half_log_snr(before[0])) / h
        if ratio > 0:
            estimate = x0 + (x0 - before[1]) / (2 * ratio)
    sigma, sigma_next = math.sqrt(1 - alpha_bar(t)), math.sqrt(1 - alpha_bar(t_next))
    return sigma_next / sigma * x - math.sqrt(alpha_bar(t_next)) * math.expm1(-h) * estimate


def _half_log_snr(t: float) -> float:
    signal = alpha_bar(t)
    return 0.5 * math.log(signal / (1 - signal))
