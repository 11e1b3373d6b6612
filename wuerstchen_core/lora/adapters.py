"""What a LoRA file says of one weight, and the change that it makes.

Every kind gives `delta(weight)`: what is added to the weight W at strength 1, float32, of W's
shape. Matrices of convolutions are those of their flattened kernels: out×(in·k·k).
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Adapter(Protocol):
    """One kind of change. Its fields are tensors, numbers, None, and other adapters."""

    def delta(self, weight: Tensor) -> Tensor:
        """Raises RuntimeError or ValueError where the shapes do not fit the weight."""
        ...


@dataclass(frozen=True)
class Lora:
    """scale · up·down (Hu et al. 2021, section 4.1).

    up: out×r, down: r×in; `middle` r×r×k×k is LoCon's core of a Tucker decomposition.
    """

    down: Tensor
    up: Tensor
    scale: float = 1.0
    middle: Tensor | None = None

    def delta(self, weight: Tensor) -> Tensor:
        up, down = _matrix(self.up, weight), _matrix(self.down, weight)
        product = up @ down if self.middle is None else _tucker(self.middle, up, down.T)
        return _shaped(product, weight) * self.scale


@dataclass(frozen=True)
class LoHa:
    """scale · (a₁·b₁) ∘ (a₂·b₂), a Hadamard product (Hyeon-Woo et al. 2022, FedPara).

    a: out×r, b: r×in. With cores t: r×r×k×k the factors are Tucker decompositions of kernels, and
    a: r×out (proposition 3 there; LyCORIS `loha.py`).
    """

    a1: Tensor
    b1: Tensor
    a2: Tensor
    b2: Tensor
    scale: float = 1.0
    t1: Tensor | None = None
    t2: Tensor | None = None

    def delta(self, weight: Tensor) -> Tensor:
        first = self._factor(self.a1, self.b1, self.t1, weight)
        second = self._factor(self.a2, self.b2, self.t2, weight)
        return _shaped(first * second, weight) * self.scale

    @staticmethod
    def _factor(a: Tensor, b: Tensor, core: Tensor | None, weight: Tensor) -> Tensor:
        a, b = _matrix(a, weight), _matrix(b, weight)
        return a @ b if core is None else _tucker(core, a.T, b.T)


@dataclass(frozen=True)
class LoKr:
    """scale · w₁ ⊗ w₂, a Kronecker product (Yeh et al. 2024, LyCORIS, section 3.2).

    Each factor comes whole, as one tensor, or as a product of several: a·b, and for kernels
    (core, a: r×out, b: r×in).
    """

    first: tuple[Tensor, ...]
    second: tuple[Tensor, ...]
    scale: float = 1.0

    def delta(self, weight: Tensor) -> Tensor:
        first, second = self._factor(self.first, weight), self._factor(self.second, weight)
        first = first.reshape(first.shape + (1,) * (second.ndim - first.ndim))
        return _shaped(torch.kron(first, second.contiguous()), weight) * self.scale

    @staticmethod
    def _factor(parts: tuple[Tensor, ...], weight: Tensor) -> Tensor:
        if len(parts) == 3:
            core, a, b = parts
            return _tucker(core, _matrix(a, weight).T, _matrix(b, weight).T)
        if len(parts) == 2:
            return _matrix(parts[0], weight) @ _matrix(parts[1], weight)
        return parts[0].to(weight.device, torch.float32)


@dataclass(frozen=True)
class Dora:
    """W' = magnitude · (W + Δ) / ‖W + Δ‖, the norm of each row or column (Liu et al. 2024, eq. 5).

    magnitude: out×1 for the norms of rows, 1×in for those of columns (with 1×1 behind them for
    convolutions).
    """

    direction: Adapter
    magnitude: Tensor

    def delta(self, weight: Tensor) -> Tensor:
        original = weight.float()
        turned = original + self.direction.delta(weight)
        rows = self.magnitude.shape[0] != 1
        over = tuple(dim for dim in range(turned.ndim) if dim != (0 if rows else 1))
        norm = torch.linalg.vector_norm(turned, dim=over, keepdim=True)
        magnitude = self.magnitude.to(weight.device, torch.float32).reshape(norm.shape)
        return turned * (magnitude / norm.clamp_min(torch.finfo(torch.float32).eps)) - original


@dataclass(frozen=True)
class Difference:
    """The change itself, as extractors store small weights and biases."""

    difference: Tensor

    def delta(self, weight: Tensor) -> Tensor:
        return _shaped(self.difference.to(weight.device, torch.float32), weight)


def _matrix(factor: Tensor, weight: Tensor) -> Tensor:
    """A factor as a float32 matrix beside the weight."""
    return factor.to(weight.device, torch.float32).flatten(1)


def _shaped(change: Tensor, weight: Tensor) -> Tensor:
    """A change in the weight's shape. Raises ValueError for one of another's, which may have as
    many elements."""
    if change.shape[:1] != weight.shape[:1]:
        raise ValueError(f"a change of {change.shape[0]} outputs, and {weight.shape[0]} are there")
    return change.reshape(weight.shape)


def _tucker(core: Tensor, out: Tensor, into: Tensor) -> Tensor:
    """core: r×s×k×k, out: o×r, into: i×s -> kernels o×i×k×k."""
    core = core.to(out.device, torch.float32)
    return torch.einsum("rs...,or,is->oi...", core, out, into)
