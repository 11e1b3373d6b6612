"""The samplers' steps: from x at one time to x at the next.

Sources: diffusers `scheduling_ddpm_wuerstchen.py`; DDIM (Song et al. 2021); DPM-Solver++ 2M (Lu et
al. 2022, algorithm 2) and its SDE (section 5 and appendix B there, midpoint rule); UniPC (Zhao et
al. 2023, algorithms 5 and 8, B(h) = e^h - 1, order 2).
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from .noise import SampleNoise
from .schedule import alpha_bar


@dataclass(frozen=True)
class Estimate:
    """What one call of the model tells at time t."""

    t: float
    eps: Tensor  # B×C×H×W, as x0
    x0: Tensor


class Solver(ABC):
    """One sampler on one walk; it may remember what it saw on the way."""

    def __init__(self, noise: SampleNoise) -> None:
        self.noise = noise

    @abstractmethod
    def step(self, x: Tensor, now: Estimate, t_next: float) -> Tensor:
        """x: B×C×H×W at now.t, where the model was called -> x at t_next < now.t."""


class Ddpm(Solver):
    def step(self, x: Tensor, now: Estimate, t_next: float) -> Tensor:
        """`DDPMWuerstchenScheduler.step`: the posterior mean plus noise; none is added at t = 0."""
        noise = self.noise.draw(tuple(x.shape[1:]), x.device)
        signal, signal_next = alpha_bar(now.t), alpha_bar(t_next)
        alpha = signal / signal_next
        mean = (x - (1 - alpha) / math.sqrt(1 - signal) * now.eps) / math.sqrt(alpha)
        if t_next == 0:
            return mean
        return mean + math.sqrt((1 - alpha) * (1 - signal_next) / (1 - signal)) * noise


class Ddim(Solver):
    def step(self, x: Tensor, now: Estimate, t_next: float) -> Tensor:
        signal = alpha_bar(t_next)
        return math.sqrt(signal) * now.x0 + math.sqrt(1 - signal) * now.eps


class Dpmpp2M(Solver):
    """Second order in half the log SNR, through the last two estimates of x0.

    First order on the last step: it is so long in log SNR that a line would overshoot.
    """

    before: Estimate | None = None  # of the step before, at a noise level of its own

    def step(self, x: Tensor, now: Estimate, t_next: float) -> Tensor:
        x0 = self.in_the_middle(now, t_next)
        self.before = now
        return _moved(x, x0, now.t, t_next)

    def in_the_middle(self, now: Estimate, t_next: float) -> Tensor:
        """x0 halfway to t_next on the line through both estimates, or x0 now in first order."""
        if self.before is None or _is_end(t_next):
            return now.x0
        ratio = _ratio(self.before.t, now.t, t_next)
        if ratio == 0:
            return now.x0
        return now.x0 + (now.x0 - self.before.x0) / (2 * ratio)


class Dpmpp2MSde(Dpmpp2M):
    """The same with noise renewed on the way; its first-order step is `Ddpm`'s."""

    def step(self, x: Tensor, now: Estimate, t_next: float) -> Tensor:
        noise = self.noise.draw(tuple(x.shape[1:]), x.device)
        x0 = self.in_the_middle(now, t_next)
        self.before = now
        h = _half_log_snr(t_next) - _half_log_snr(now.t)
        renewed = -math.expm1(-2 * h)  # the share of the remaining noise's variance
        sigma, sigma_next = _sigma(now.t), _sigma(t_next)
        mean = sigma_next / sigma * math.exp(-h) * x + math.sqrt(alpha_bar(t_next)) * renewed * x0
        if _is_end(t_next):
            return mean
        return mean + sigma_next * math.sqrt(renewed) * noise


class UniPC(Dpmpp2M):
    """2M predicts; the estimate at the end of a step then corrects that step, without a call."""

    past: Estimate | None = None  # of the step before `before`
    start: Tensor  # x at before.t, corrected

    def step(self, x: Tensor, now: Estimate, t_next: float) -> Tensor:
        if self.before is not None and _half_log_snr(now.t) > _half_log_snr(self.before.t):
            x = self._corrected(self.before, now)
            self.past = self.before
        self.start = x
        return super().step(x, now, t_next)

    def _corrected(self, before: Estimate, now: Estimate) -> Tensor:
        """The step that led from before.t to now.t once more, with both ends known."""
        change = now.x0 - before.x0
        if self.past is None:
            x0 = before.x0 + change / 2
        else:
            h = _half_log_snr(now.t) - _half_log_snr(before.t)
            ratio = _ratio(self.past.t, before.t, now.t)
            first, second = _phi(2, -h) / _phi(1, -h), 2 * _phi(3, -h) / _phi(1, -h)
            end = (ratio * first + second) / (1 + ratio)
            slope = (before.x0 - self.past.x0) / ratio
            x0 = before.x0 + (first - end) * slope + end * change
        return _moved(self.start, x0, before.t, now.t)


SOLVERS: dict[str, type[Solver]] = {
    "ddpm": Ddpm,
    "ddim": Ddim,
    "dpmpp_2m": Dpmpp2M,
    "dpmpp_2m_sde": Dpmpp2MSde,
    "unipc": UniPC,
}


def _moved(x: Tensor, x0: Tensor, t: float, t_next: float) -> Tensor:
    """The exact solution from t to t_next for an x0 that stays the same."""
    h = _half_log_snr(t_next) - _half_log_snr(t)
    return _sigma(t_next) / _sigma(t) * x - math.sqrt(alpha_bar(t_next)) * math.expm1(-h) * x0


def _is_end(t: float) -> bool:
    """Whether t has as little noise as t = 0, near which alpha_bar is clamped."""
    return alpha_bar(t) == alpha_bar(0)


def _ratio(before: float, t: float, t_next: float) -> float:
    """The last step's length over the next one's; 0 where either has none, since alpha_bar is
    clamped."""
    h = _half_log_snr(t_next) - _half_log_snr(t)
    return (_half_log_snr(t) - _half_log_snr(before)) / h if h > 0 else 0.0


def _sigma(t: float) -> float:
    return math.sqrt(1 - alpha_bar(t))


def _half_log_snr(t: float) -> float:
    signal = alpha_bar(t)
    return 0.5 * math.log(signal / (1 - signal))


def _phi(k: int, z: float) -> float:
    """(the exponential series without its first k terms) / z^k, as a series: exact at z = 0.

    60 terms give full precision for |z| < 10, and no step of the schedule is longer.
    """
    return math.fsum(z**n / math.factorial(n + k) for n in range(60))
