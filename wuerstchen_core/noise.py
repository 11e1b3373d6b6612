"""Noise that does not depend on the batch: every sample draws from a generator of its own."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

_SEEDS = 2**64  # torch takes seeds modulo this


class SampleNoise:
    """Draws random numbers on the CPU, one generator a sample.

    So sample i of a batch equals the same seed run alone, on every device.
    """

    def __init__(self, seeds: Iterable[int]) -> None:
        self._seeds = tuple(seeds)
        self._generators = [torch.Generator().manual_seed(seed % _SEEDS) for seed in self._seeds]

    def of(self, samples: slice) -> "SampleNoise":
        """The noise of a part of the batch, from its first draw on."""
        return SampleNoise(self._seeds[samples])

    def draw(self, shape: tuple[int, ...], device: torch.device | str = "cpu") -> Tensor:
        """Standard normal noise. shape: of one sample, without the batch -> batch×shape float32 on
        the device."""
        return self._drawn(lambda g: torch.randn(shape, generator=g), device)

    def uniform(self, shape: tuple[int, ...], device: torch.device | str = "cpu") -> Tensor:
        """Like `draw`: numbers in [0, 1)."""
        return self._drawn(lambda g: torch.rand(shape, generator=g), device)

    def integers(
        self, below: int, shape: tuple[int, ...], device: torch.device | str = "cpu"
    ) -> Tensor:
        """Like `draw`: 0 to below - 1, int64."""
        return self._drawn(lambda g: torch.randint(below, shape, generator=g), device)

    def _drawn(
        self, draw: Callable[[torch.Generator], Tensor], device: torch.device | str
    ) -> Tensor:
        noise = torch.stack([draw(generator) for generator in self._generators])
        if torch.device(device).type == "cuda":  # from pinned memory a copy waits for nothing
            return noise.pin_memory().to(device, non_blocking=True)
        return noise.to(device)
