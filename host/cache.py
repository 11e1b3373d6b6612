"""What nodes gave, kept between prompts and bounded in number and bytes."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class NodeOutput:
    """What one node gave: a list of values for each socket, and its `ui` dict or None."""

    values: list[list[Any]]
    ui: dict[str, Any] | None = None


@dataclass(frozen=True)
class CacheLimits:
    """`entries=0` switches caching off. `bytes` bounds tensors and arrays; `weight_bytes` the
    networks that loaders gave, of which the one used last always stays."""

    entries: int = 256
    bytes: int = 2 << 30
    weight_bytes: int = 12 << 30


@dataclass(frozen=True)
class _Entry:
    """`data` are the tensors and arrays inside plain containers; `weights` what loaders gave has
    under that name, and other nodes' outputs may share."""

    output: NodeOutput
    data: list[Any]
    weights: list[Any]


class _Holdings:
    """Things that have `nbytes`; one that several entries hold counts once, until the last of
    them is gone."""

    def __init__(self) -> None:
        self._holders: Counter[int] = Counter()
        self._sizes: dict[int, int] = {}
        self._light: dict[int, Any] = {}  # nothing as yet: weights come after their loader

    def add(self, things: list[Any]) -> None:
        for one in things:
            self._holders[id(one)] += 1
            if id(one) not in self._sizes:
                self._light[id(one)] = one

    def remove(self, things: list[Any]) -> None:
        for one in things:
            self._holders[id(one)] -= 1
            if not self._holders[id(one)]:
                del self._holders[id(one)]
                self._sizes.pop(id(one), None)
                self._light.pop(id(one), None)

    def measure(self) -> int:
        """Bytes of all."""
        sizes = {key: int(one.nbytes) for key, one in self._light.items()}
        self._sizes |= {key: size for key, size in sizes.items() if size}
        self._light = {key: one for key, one in self._light.items() if not sizes[key]}
        return sum(self._sizes.values())

    def weigh(self, things: list[Any]) -> bool:
        """Whether any of these takes memory, as last measured."""
        return any(id(one) in self._sizes for one in things)


class OutputCache:
    """Least-recently-used outputs by signature; safe to clear from another thread."""

    def __init__(self, limits: CacheLimits) -> None:
        self._limits = limits
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._data = _Holdings()
        self._weights = _Holdings()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def nbytes(self) -> int:
        """Of tensors and arrays inside plain containers."""
        with self._lock:
            return self._data.measure()

    def __contains__(self, signature: str) -> bool:
        return signature in self._entries

    def get(self, signature: str) -> NodeOutput | None:
        with self._lock:
            entry = self._entries.get(signature)
            if entry is None:
                return None
            self._entries.move_to_end(signature)
            return entry.output

    def put(self, signature: str, output: NodeOutput) -> None:
        if not self._limits.entries:
            return
        entry = _Entry(output, *_things_in(output.values))
        with self._lock:
            if signature in self._entries:
                self._drop(signature)
            self._entries[signature] = entry
            self._data.add(entry.data)
            self._weights.add(entry.weights)
            while len(self._entries) > self._limits.entries:
                self._drop(next(iter(self._entries)))
            self._shrink(self._data, self._limits.bytes, kept=0)
            self._shrink(self._weights, self._limits.weight_bytes, kept=1)

    def clear(self) -> None:
        with self._lock:
            for signature in list(self._entries):
                self._drop(signature)

    def _drop(self, signature: str) -> None:
        entry = self._entries.pop(signature)
        self._data.remove(entry.data)
        self._weights.remove(entry.weights)

    def _shrink(self, holdings: _Holdings, limit: int, kept: int) -> None:
        """Drops the oldest entries that weigh anything until the rest fits; `kept` stay anyway."""
        if holdings.measure() <= limit:
            return
        things = {key: entry.data + entry.weights for key, entry in self._entries.items()}
        heavy = [key for key, held in things.items() if holdings.weigh(held)]
        for signature in heavy[: len(heavy) - kept]:
            self._drop(signature)
            if holdings.measure() <= limit:
                return


def _things_in(values: Any) -> tuple[list[Any], list[Any]]:
    """Tensors and arrays inside plain containers, and the weights of what else is there."""
    data: list[Any] = []
    weights: list[Any] = []
    waiting = [values]
    opened: set[int] = set()  # a list may hold itself
    while waiting:
        value = waiting.pop()
        if id(value) in opened:
            continue
        opened.add(id(value))
        if isinstance(value, (list, tuple, set)):
            waiting += value
        elif isinstance(value, (torch.Tensor, np.ndarray)):
            data.append(value)
        elif isinstance(value, Mapping):
            waiting += value.values()
        elif isinstance(getattr(getattr(value, "weights", None), "nbytes", None), int):
            weights += _with_shared(value.weights)
    return data, weights


def _with_shared(weights: Any) -> list[Any]:
    """Weights, and those beside them that hold the tensors they share."""
    beside = getattr(weights, "beside", None)
    return [weights] if beside is None else [weights, *_with_shared(beside)]
