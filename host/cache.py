"""What nodes gave, kept between prompts and bounded in number and bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
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


class OutputCache:
    """Least-recently-used outputs by signature; safe to clear from another thread."""

    def __init__(self, limits: CacheLimits) -> None:
        self._limits = limits
        self._entries: OrderedDict[str, NodeOutput] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def nbytes(self) -> int:
        """Of tensors and arrays inside plain containers."""
        with self._lock:
            return sum(_nbytes(output.values) for output in self._entries.values())

    def __contains__(self, signature: str) -> bool:
        return signature in self._entries

    def get(self, signature: str) -> NodeOutput | None:
        with self._lock:
            output = self._entries.get(signature)
            if output is not None:
                self._entries.move_to_end(signature)
            return output

    def put(self, signature: str, output: NodeOutput) -> None:
        with self._lock:
            self._entries[signature] = output
            self._entries.move_to_end(signature)
            while len(self._entries) > self._limits.entries:
                self._entries.popitem(last=False)
            # Measured anew each time: a network's weights come after its loader gave it.
            self._shrink(_nbytes, self._limits.bytes, kept=0)
            self._shrink(_weight_bytes, self._limits.weight_bytes, kept=1)

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()

    def _shrink(self, measure: Callable[[Any], int], limit: int, kept: int) -> None:
        """Drops the oldest entries that weigh anything until the rest fits; `kept` stay anyway."""
        sizes = {key: measure(output.values) for key, output in self._entries.items()}
        heavy = [key for key, size in sizes.items() if size]
        total = sum(sizes.values())
        for key in heavy[: len(heavy) - kept]:
            if total <= limit:
                return
            total -= sizes[key]
            del self._entries[key]


def _nbytes(value: Any) -> int:
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return int(value.nbytes)
    return sum(map(_nbytes, _inside(value)))


def _weight_bytes(value: Any) -> int:
    """What the value itself says of the weights that it holds."""
    own = getattr(value, "weight_bytes", 0)
    return own if isinstance(own, int) and own else sum(map(_weight_bytes, _inside(value)))


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, (list, tuple, set)) else ()
