"""Sampling: from noise to x0 along a descending list of times, with a solver of `solvers.py`.

One callback a step carries progress, preview and cancel.
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
from .solvers import SOLVERS, Estimate

SAMPLERS = tuple(SOLVERS)


@dataclass(frozen=True)
class StepInfo:
    """What is known after one call of the model."""

    step: int  # from 0
    steps: int
    t: float  # the time this step started from
    t_next: float
    x0: Tensor  # the current estimate of the result, B×C×H×W


Callback = Callable[[StepInfo], None]  # raise from it to cancel


@dataclass(frozen=True)
class Known:
    """What inpainting keeps. x0: B×C×H×W, as x; mask: B×1×H×W in [0, 1], 1 = to be sampled."""

    x0: Tensor
    mask: Tensor

    def noised(self, t: float, noise: Tensor) -> Tensor:
        return add_noise(self.x0, noise, torch.full((len(noise),), t, device=noise.device))

    def within(self, x: Tensor, known: Tensor) -> Tensor:
        return torch.lerp(known, x, self.mask)


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
    known: Known | None = None,
) -> Tensor:
    """Walks x down `times`; x: B×C×H×W float32 at times[0] -> B×C×H×W at times[-1].

    model: (x, t) -> eps. noise: drawn once a step by stochastic samplers, the last step
    included, as in the reference. known: is noised anew before each call of the model, by noise
    drawn before that of the step (dome272/Wuerstchen `diffuzz.py`), and is in the result as it is.
    Raises SettingError for an unknown sampler or bad times.
    """
    if sampler_name not in SAMPLERS:
        names = ", ".join(SAMPLERS)
        raise SettingError(f"sampler_name {sampler_name!r} is unknown; choose one of {names}.")
    walk = check_times(times)
    solver = SOLVERS[sampler_name](noise)
    for step, (t, t_next) in enumerate(zip(walk, walk[1:], strict=False)):
        if known is not None:
            x = known.within(x, known.noised(t, noise.draw(tuple(x.shape[1:]), x.device)))
        eps = model(x, t)
        signal = alpha_bar(t)
        x0 = (x - math.sqrt(1 - signal) * eps) / math.sqrt(signal)
        if callback is not None:
            shown = x0 if known is None else known.within(x0, known.x0)
            callback(StepInfo(step, len(walk) - 1, t, t_next, shown))
        x = solver.step(x, Estimate(t, eps, x0), t_next)
    return x if known is None else known.within(x, known.x0)
