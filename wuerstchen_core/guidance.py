"""Classifier-free guidance (Ho and Salimans 2022), over all times or a part of them
(Kynkäänniemi et al. 2024)."""

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

from .layers import Times

# (x, t) -> eps
Predict: TypeAlias = Callable[[Tensor, Times], Tensor]
# The same with what the network's `prepare` gave.
Network: TypeAlias = Callable[[Tensor, Times, Any], Tensor]
# What `prepare` reads, each B×…; None for what is not wired.
Conditions: TypeAlias = tuple[Tensor | None, ...]


class Context(Protocol):
    def first(self, batch: int) -> Any:
        """The same context for its first samples alone."""


def predictor(
    network: Network,
    prepare: Callable[..., Context],
    positive: Conditions,
    negative: Conditions | None = None,
    scale: float = 1.0,
    end: float = 0.0,
) -> Predict:
    """(x, t) -> eps, guided away from `negative` at times above `end`; None: never.

    Past `end` the unconditional branch is not run, which halves the work. Both branches share a
    batch where their conditions have the same shapes.
    """
    if negative is None:
        return plain(network, prepare(*positive))
    if [_shape(a) for a in positive] == [_shape(b) for b in negative]:
        both = prepare(*map(_joined, positive, negative))
        batch = next(len(a) for a in positive if a is not None)
        conditional = plain(network, both.first(batch))
        whole = guided(network, both, scale)
    else:
        conditional = plain(network, prepare(*positive))
        whole = guided_separately(conditional, plain(network, prepare(*negative)), scale)
    return guided_until(end, whole, conditional)


def guided(network: Network, context: Any, scale: float) -> Predict:
    """(x, t) -> lerp(uncond, cond, scale), both in one batch of twice the size.

    context: what the network's `prepare` made of 2B conditions, the B conditional ones first.
    """

    def predict(x: Tensor, t: Times) -> Tensor:
        twice = torch.cat([t, t]) if isinstance(t, Tensor) else t
        both = network(torch.cat([x, x]), twice, context)
        conditional, unconditional = both.chunk(2)
        return torch.lerp(unconditional, conditional, scale)

    return predict


def plain(network: Network, context: Any) -> Predict:
    """(x, t) -> eps without guidance, which is what a scale of 1 or less means."""

    def predict(x: Tensor, t: Times) -> Tensor:
        return network(x, t, context)

    return predict


def guided_separately(conditional: Predict, unconditional: Predict, scale: float) -> Predict:
    """The same with two calls, for conditions that do not fit into one batch."""

    def predict(x: Tensor, t: Times) -> Tensor:
        return torch.lerp(unconditional(x, t), conditional(x, t), scale)

    return predict


def guided_until(end: float, whole: Predict, conditional: Predict) -> Predict:
    """`whole` at times above `end`, from there on the conditional branch alone; t: one time."""

    def predict(x: Tensor, t: Times) -> Tensor:
        return whole(x, t) if t > end else conditional(x, t)

    return predict


def _shape(condition: Tensor | None) -> torch.Size | None:
    return None if condition is None else condition.shape


def _joined(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    return None if first is None or second is None else torch.cat([first, second])
