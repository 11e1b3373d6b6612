"""Weights that are computed from others, one tensor at a time, when they are asked for."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping

from torch import Tensor


class Computed(Mapping[str, Tensor]):
    """Tensors with the names and shapes of `original`."""

    def __init__(self, original: Mapping[str, Tensor]) -> None:
        self.original = original

    @abstractmethod
    def __getitem__(self, name: str) -> Tensor: ...

    def __iter__(self) -> Iterator[str]:
        return iter(self.original)

    def __len__(self) -> int:
        return len(self.original)


def stored(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Tensors of the same names and shapes that need not be computed."""
    while isinstance(state, Computed):
        state = state.original
    return state
