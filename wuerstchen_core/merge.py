"""Priors merged tensor by tensor, as the published one is: 50:50 of the base and the finetuned.

Source: dome272/Wuerstchen, README (`model_v2_stage_c_finetune_interpolation.pt`).
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from .checkpoints.configs import STAGE_C
from .checkpoints.load import Weights
from .checkpoints.save import cast, write_part
from .computed import Computed, stored
from .errors import CheckpointError, MismatchedCheckpointError, SettingError
from .files import write_folder_atomically

METHODS = ("weighted_sum", "add_difference")
_LARGEST_RATIO = 10


class WeightedSum(Computed):
    """A + ratio · (B - A), float32: 0 is A, 1 is B."""

    def __init__(self, a: Mapping[str, Tensor], b: Mapping[str, Tensor], ratio: float) -> None:
        """Raises MismatchedCheckpointError for weights of another shape."""
        super().__init__(a)
        _check(a, b, "B")
        self._b, self._ratio = b, ratio

    def __getitem__(self, name: str) -> Tensor:
        a, b = _read(name, self.original, self._b)
        if not a.is_floating_point():
            return a
        return torch.lerp(a.float(), b.float(), self._ratio)


class AddDifference(Computed):
    """A + ratio · (B - C), float32: what makes B of C is added to A."""

    def __init__(
        self,
        a: Mapping[str, Tensor],
        b: Mapping[str, Tensor],
        c: Mapping[str, Tensor],
        ratio: float,
    ) -> None:
        """Raises MismatchedCheckpointError for weights of another shape."""
        super().__init__(a)
        _check(a, b, "B")
        _check(a, c, "C")
        self._b, self._c, self._ratio = b, c, ratio

    def __getitem__(self, name: str) -> Tensor:
        a, b, c = _read(name, self.original, self._b, self._c)
        if not a.is_floating_point():
            return a
        return torch.add(a.float(), b.float() - c.float(), alpha=self._ratio)


def merged(a: Weights, b: Weights, ratio: float, c: Weights | None = None) -> Weights:
    """The weighted sum of A and B, or with C the difference of B and C added to A; computed when
    it is read. Raises MismatchedCheckpointError, and SettingError for a ratio beyond ±10."""
    if not abs(ratio) <= _LARGEST_RATIO:
        raise SettingError(
            f"ratio {ratio:g} is not between -{_LARGEST_RATIO} and {_LARGEST_RATIO}."
        )
    if c is None:
        return replace(a, state=WeightedSum(a.state, b.state, ratio))
    return replace(a, state=AddDifference(a.state, b.state, c.state, ratio))


def write_stage_c(weights: Weights, folder: Path, dtype: torch.dtype, made_of: str) -> None:
    """Weights of Stage C -> a folder with config.json, whole or not at all, that diffusers opens
    too. made_of: kept in the file's metadata.

    Raises CheckpointError for weights that are not finite or beyond the range of `dtype`, and
    SettingError where the folder exists or cannot be written.
    """
    try:
        with write_folder_atomically(folder) as partial:
            about = {"wuerstchen.made_of": made_of}
            state = cast(weights.state, dtype)
            _check_finite(state)
            write_part(STAGE_C, weights.config, state, partial, about)
    except FileExistsError:
        raise SettingError(f"{folder} exists already; choose another name.") from None
    except OSError as error:
        raise SettingError(f"{folder} cannot be written: {error.strerror or error}.") from error


def _read(name: str, *states: Mapping[str, Tensor]) -> list[Tensor]:
    """One tensor of each, computed once where several are the same."""
    different = {id(state): state for state in states}
    values = {key: state[name] for key, state in different.items()}
    return [values[id(state)] for state in states]


def _check_finite(state: Mapping[str, Tensor]) -> None:
    for name, value in state.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise CheckpointError(
                f"{name} is not finite, so the result would draw nothing; one of the weights that "
                "it is made of is damaged."
            )


def _check(a: Mapping[str, Tensor], other: Mapping[str, Tensor], letter: str) -> None:
    shapes = {name: tuple(value.shape) for name, value in stored(a).items()}
    others = {name: tuple(value.shape) for name, value in stored(other).items()}
    different = [name for name in (*shapes, *others) if shapes.get(name) != others.get(name)]
    if different:
        raise MismatchedCheckpointError(
            f"weights A and {letter} are of different networks, so they cannot be merged: "
            f"{different[0]} is {_times(shapes.get(different[0]))} in A and "
            f"{_times(others.get(different[0]))} in {letter}."
        )


def _times(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else "×".join(map(str, shape)) or "a single number"
