"""From what several conditions predict to one eps.

Classifier-free guidance (Ho and Salimans 2022), on a part of the steps (Kynkäänniemi et al. 2024),
with its contrast brought back (Lin et al. 2023, section 3.4), or as adaptive projected guidance
(Sadat et al. 2024).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import torch
from torch import Tensor

from .conditions import Branch, Condition
from .layers import Times
from .schedule import alpha_bar

# (x, t) -> eps
Predict: TypeAlias = Callable[[Tensor, float], Tensor]
# The same with what the network's `prepare` gave.
Network: TypeAlias = Callable[[Tensor, Times, Any], Tensor]
# How strongly to guide: at all times, or at each one.
Scale: TypeAlias = float | Callable[[float], float]


@dataclass(frozen=True)
class Guidance:
    """How guidance works beyond its scale; the presets are the plain one.

    start, end: shares of the steps between which it takes part.
    rescale: 0 to 1, how far the guided eps is brought back to the conditional one's deviation.
    projected: whether it is adaptive projected guidance, which reads the next three.
    eta: what is kept of the push along the conditional x0, which saturates; 1 keeps all.
    norm_threshold: the push is no longer than this; 0 leaves it.
    momentum: share of the earlier steps' pushes that is added; below 0 it is taken away.
    embedding_scale: Stage B only: the scale of the image embedding, apart from the text's; None
        guides away from both at once.
    """

    start: float = 0.0
    end: float = 1.0
    rescale: float = 0.0
    projected: bool = False
    eta: float = 0.0
    norm_threshold: float = 15.0
    momentum: float = -0.5
    embedding_scale: float | None = None


class Predictor:
    """(x, t) -> eps of one run: guided along a line of branches, which share batches.

    Each branch is guided away from the one before it; the last one is the conditional branch,
    which alone is run at times when guidance takes no part.
    """

    def __init__(
        self,
        network: Network,
        prepare: Callable[..., Any],
        branches: Sequence[Branch],
        scales: Sequence[Scale],
        guidance: Guidance = Guidance(),
        guided: tuple[float, float] = (1.0, 0.0),
    ) -> None:
        """scales: one for each branch but the first. guided: times (up to, above)."""
        self._network, self._prepare = network, prepare
        self._branches, self._scales = list(branches), list(scales)
        self._guidance, (self._up_to, self._above) = guidance, guided
        self._counting: list[Condition] = []
        self._groups: list[tuple[list[Condition], Any]] = []
        self._pushes: dict[int, Tensor] = {}

    def __call__(self, x: Tensor, t: float) -> Tensor:
        guides = self._up_to >= t > self._above
        branches = self._branches if guides else self._branches[-1:]
        found = self._predict(x, t, branches)
        if len(found) == 1:
            return found[0]
        conditional = eps = found[-1]
        for index, (lower, upper) in enumerate(pairwise(found)):
            push = upper - lower
            if self._guidance.projected:
                push = self._projected(push, conditional, x, t, index)
            scale = self._scales[index]
            eps = eps + ((scale(t) if callable(scale) else scale) - 1) * push
        return _rescaled(eps, conditional, self._guidance.rescale)

    def _predict(self, x: Tensor, t: float, branches: Sequence[Branch]) -> list[Tensor]:
        """Each branch's eps: the mean of its conditions, by their weights."""
        live = [[one for one in branch if one.start >= t >= one.end] for branch in branches]
        self._make_ready([one for branch in live for one in branch])
        eps: dict[Condition, Tensor] = {}
        for group, context in self._groups:
            predicted = self._network(torch.cat([x] * len(group)), t, context)
            eps.update(zip(group, predicted.chunk(len(group)), strict=True))
        return [_mean(branch, eps) for branch in live]

    def _make_ready(self, counting: list[Condition]) -> None:
        """Prepares the network for what counts now; what counted before is let go first."""
        if counting == self._counting:
            return
        self._counting, self._groups = counting, []
        groups: dict[Any, list[Condition]] = {}
        for one in counting:
            groups.setdefault(one.shapes, []).append(one)
        for group in groups.values():
            inputs = zip(*(one.inputs for one in group), strict=True)
            self._groups.append((group, self._prepare(*map(_joined, inputs))))

    def _projected(
        self, push: Tensor, conditional: Tensor, x: Tensor, t: float, index: int
    ) -> Tensor:
        """Algorithm 1 of Sadat et al., which works on x0, for a push of eps."""
        guidance, signal = self._guidance, alpha_bar(t)
        ratio = math.sqrt(1 - signal) / math.sqrt(signal)  # x0 = x / sqrt(signal) - ratio · eps
        direction = -ratio * push
        if index in self._pushes:
            direction = direction + guidance.momentum * self._pushes[index]
        self._pushes[index] = direction
        if guidance.norm_threshold > 0:
            direction = direction * (guidance.norm_threshold / _norm(direction)).clamp(max=1)
        x0 = x / math.sqrt(signal) - ratio * conditional
        along = x0 / _norm(x0).clamp(min=1e-12)
        parallel = (direction * along).sum(dim=(1, 2, 3), keepdim=True) * along
        return (direction - parallel + guidance.eta * parallel) / -ratio


def _mean(branch: Branch, eps: dict[Condition, Tensor]) -> Tensor:
    if len(branch) == 1:
        return eps[branch[0]]
    weighted = [one.weight * eps[one] for one in branch]
    return sum(weighted[1:], weighted[0]) / sum(one.weight for one in branch)


def _rescaled(eps: Tensor, conditional: Tensor, share: float) -> Tensor:
    """Equations 15 and 16 of Lin et al."""
    if share == 0:
        return eps
    sides = (1, 2, 3)
    level = conditional.std(dim=sides, keepdim=True) / eps.std(dim=sides, keepdim=True)
    return torch.lerp(eps, eps * level, share)


def _norm(x: Tensor) -> Tensor:
    """Of each sample, B×1×1×1."""
    return torch.linalg.vector_norm(x, dim=(1, 2, 3), keepdim=True)


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    given = [part for part in parts if part is not None]
    return torch.cat(given) if given else None
