"""The noise schedule alpha_bar(t) and the lists of times a sampler walks down.

Time t runs from 1 (pure noise) to 0 (the picture). Source: diffusers
`scheduling_ddpm_wuerstchen.py`; dome272/Wuerstchen `diffuzz.py`.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .errors import SettingError

SCHEDULERS = ("default", "notebook", "uniform")

S, SCALER = 0.008, 1.0  # fields of the published scheduler_config.json; scaler 1 bends no time
_LOWEST, _HIGHEST = 1e-4, 0.9999


def alpha_bar(t: float) -> float:
    """The share of signal power at time t: cosine schedule, s = 0.008, in [1e-4, 0.9999]."""
    angle = (t + S) / (1 + S) * math.pi / 2
    value = math.cos(angle) ** 2 / math.cos(S / (1 + S) * math.pi / 2) ** 2
    return min(max(value, _LOWEST), _HIGHEST)


def alpha_bar_of(t: Tensor) -> Tensor:
    """`alpha_bar` of a tensor of times, any shape, in float32."""
    angle = (t.float() + S) / (1 + S) * (math.pi / 2)
    value = angle.cos() ** 2 / math.cos(S / (1 + S) * math.pi / 2) ** 2
    return value.clamp(_LOWEST, _HIGHEST)


def add_noise(x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """The forward process: sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) noise; t: B times."""
    signal = alpha_bar_of(t).to(x0.device).view(-1, *[1] * (x0.ndim - 1))
    return signal.sqrt() * x0 + (1 - signal).sqrt() * noise


def times(scheduler: str, steps: int, denoise: float = 1.0) -> list[float]:
    """`steps` + 1 descending times that end at 0, for `steps` calls of the model.

    scheduler: "default" gives at 29 steps exactly diffusers' DEFAULT_STAGE_C_TIMESTEPS (19 steps
    from 1 to 2/3, 10 to 0) and keeps its shape at other counts; "notebook" is the original
    notebook's 20 + 10 at 30 steps; "uniform" is evenly spaced.
    denoise: how much of the way to walk, in [0, 1]. As in ComfyUI's KSampler, the list is the end
    of a longer one, so that `steps` calls are made whatever the strength; 0 makes none.

    Raises SettingError for an unknown scheduler, fewer than one step or a strength out of range.
    """
    if steps < 1:
        raise SettingError(f"steps is {steps}; at least 1 is needed.")
    if not 0 <= denoise <= 1:
        raise SettingError(f"denoise is {denoise}; a value from 0 to 1 is expected.")
    if denoise == 0:
        return []
    total = max(steps, int(steps / denoise))
    if scheduler == "uniform":
        whole = _linspace(1.0, 0.0, total)
    elif scheduler == "default":
        whole = _two_slopes(total, 19 / 29)
    elif scheduler == "notebook":
        whole = _two_slopes(total, 20 / 30)
    else:
        known = ", ".join(SCHEDULERS)
        raise SettingError(f"scheduler {scheduler!r} is unknown; choose one of {known}.")
    return whole[-steps - 1 :]


def thinned(walk: Sequence[float], change: float) -> list[float]:
    """The times left when the model is called only where x has moved by `change` of its length.

    To use a call's result again for the next step is to leave that step out: while x0 and eps stay
    the same, every solver makes one step of two. How far x moves then, the angle between
    (sqrt(alpha_bar), sqrt(1 - alpha_bar)) at both times for x0 and eps of unit variance, depends
    on the times alone, so a batch and its singles skip the same steps. The first and the last step
    are always taken; 0 takes all.
    """
    kept = list(walk[:1])
    for t in walk[1:-2]:
        if _angle(kept[-1]) - _angle(t) >= change:
            kept.append(t)
    return kept + list(walk[1:][-2:])


def check_times(values: Sequence[float]) -> list[float]:
    """A custom list of times as floats: strictly descending, in [0, 1], at least two."""
    result = [float(v) for v in values]
    descending = all(a > b for a, b in zip(result, result[1:], strict=False))
    if len(result) < 2 or not descending or result[0] > 1 or result[-1] < 0:
        raise SettingError(
            f"times are {result}; at least two strictly descending values from 1 to 0 are expected."
        )
    return result


def _angle(t: float) -> float:
    return math.acos(math.sqrt(alpha_bar(t)))


def _two_slopes(steps: int, share: float) -> list[float]:
    """`share` of the steps from 1 to 2/3, the rest from there to 0."""
    first = min(max(round(steps * share), 1), steps - 1)
    if first < 1:  # a single step
        return [1.0, 0.0]
    return _linspace(1.0, 2 / 3, first) + _linspace(2 / 3, 0.0, steps - first)[1:]


def _linspace(start: float, end: float, steps: int) -> list[float]:
    return torch.linspace(start, end, steps + 1, dtype=torch.float64).tolist()
