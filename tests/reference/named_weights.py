"""Weights that depend on nothing but a parameter's name, so that two implementations with the same
names get the same weights without either one's file."""

import zlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn


def named_weights(shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """Random weights for each name: fan-in scaled matrices, positive variances, scales near 0.5.

    The scales keep deep residual networks from growing: in one that does, the last bit of a sum,
    which depends on the number of threads, decides which way a gate falls.
    """
    state = {}
    for name, shape in shapes.items():
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        noise = torch.randn(shape, generator=generator)
        if name.endswith("num_batches_tracked"):
            state[name] = torch.zeros((), dtype=torch.int64)
        elif name.endswith("running_var"):
            state[name] = 1 + 0.5 * noise.tanh()
        elif len(shape) <= 1:
            state[name] = 0.1 * noise + (0.5 if name.endswith("weight") else 0.0)
        else:
            state[name] = noise * (1 / shape[1:].numel()) ** 0.5
    return state


def tamed(network: nn.Module) -> nn.Module:
    """Random weights whose predictions stay bounded, as a trained model's do."""
    generator = torch.Generator().manual_seed(3)
    for name, value in network.named_parameters():
        fan_in = value[0].numel() if value.ndim > 1 else 1
        value.data = torch.randn(value.shape, generator=generator) * 0.5 / fan_in**0.5
        if name.startswith(("out.1", "clf.1")):
            value.data *= 0.1
    return network.eval()
