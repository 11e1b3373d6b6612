"""Classifier-free guidance (Ho and Salimans 2022)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Predict = Callable[[Tensor, Tensor], Tensor]


def guided(network: Callable[[Tensor, Tensor, Any], Tensor], context: Any, scale: float) -> Predict:
    """(x, t) -> lerp(uncond, cond, scale), both in one batch of twice the size.

    context: what the network's `prepare` made of 2B conditions, the B conditional ones first.
    """

    def predict(x: Tensor, t: Tensor) -> Tensor:
        both = network(torch.cat([x, x]), torch.cat([t, t]), context)
        conditional, unconditional = both.chunk(2)
        return torch.lerp(unconditional, conditional, scale)

    return predict


def plain(network: Callable[[Tensor, Tensor, Any], Tensor], context: Any) -> Predict:
    """(x, t) -> eps without guidance, which is what a scale of 1 or less means."""

    def predict(x: Tensor, t: Tensor) -> Tensor:
        return network(x, t, context)

    return predict


def guided_separately(conditional: Predict, unconditional: Predict, scale: float) -> Predict:
    """The same with two calls, for conditions that do not fit into one batch."""

    def predict(x: Tensor, t: Tensor) -> Tensor:
        return torch.lerp(unconditional(x, t), conditional(x, t), scale)

    return predict
