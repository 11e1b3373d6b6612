"""Exponential moving average of a network's weights."""

import copy

import torch
from torch import nn


class Ema:
    """A copy of a network whose floating-point state follows it slowly; `network` is the copy."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.network = copy.deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        # Early on the average follows quickly, else it would remember the random start for long.
        decay = min(self.decay, (1 + step) / (10 + step))
        mine = self.network.state_dict()
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                mine[name].lerp_(value, 1 - decay)
            else:
                mine[name].copy_(value)
