"""Noise that does not depend on the batch: every sample draws from a generator of its own."""

from collections.abc import Iterable

import torch
from torch import Tensor

_SEEDS = 2**64  # torch takes seeds modulo this


class SampleNoise:
    """Draws standard normal noise on the CPU in float32, one generator a sample.

    So sample i of a batch equals the same seed run alone, on every device.
    """

    def __init__(self, seeds: Iterable[int]) -> None:
        self._generators = [torch.Generator().manual_seed(seed % _SEEDS) for seed in seeds]

    def draw(self, shape: tuple[int, ...]) -> Tensor:
        """shape: of one sample, without the batch -> batch×shape float32 on the CPU."""
        return torch.stack([torch.randn(shape, generator=g) for g in self._generators])
