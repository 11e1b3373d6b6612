"""Classifier-free guidance (Ho and Salimans 2022)."""

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

from .layers import Times

# (x, t) -> eps
Predict: TypeAlias = Callable[[Tensor, Times], Tensor]
# The same with what the network's `prepare` gave.
Network: TypeAlias = Callable[[Tensor, Times, Any], Tensor]


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
