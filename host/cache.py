"""What nodes gave, kept between prompts and bounded in number and bytes."""

from __future__ import annotations

from collections import OrderedDict
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
    """`entries=0` switches caching off."""

    entries: int = 256
    bytes: int = 2 << 30


class OutputCache:
    """Least-recently-used outputs by signature; safe to clear from another thread.

    Bytes are those of tensors and arrays inside plain containers. Loaded networks are not
    counted: where those live is the loaders' own business.
    """

    def __init__(self, limits: CacheLimits) -> None:
        self._limits = limits
        self._entries: OrderedDict[str, tuple[NodeOutput, int]] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def nbytes(self) -> int:
        return self._bytes

    def __contains__(self, signature: str) -> bool:
        return signature in self._entries

    def get(self, signature: str) -> NodeOutput | None:
        with self._lock:
            entry = self._entries.get(signature)
            if entry is None:
                return None
            self._entries.move_to_end(signature)
            return entry[0]

    def put(self, signature: str, output: NodeOutput) -> None:
        size = _nbytes(output.values)
        with self._lock:
            replaced = self._entries.pop(signature, None)
            self._bytes += size - (replaced[1] if replaced else 0)
            self._entries[signature] = (output, size)
            while self._entries and (
                len(self._entries) > self._limits.entries or self._bytes > self._limits.bytes
            ):
                _, (_, freed) = self._entries.popitem(last=False)
                self._bytes -= freed

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()
            self._bytes = 0


def _nbytes(value: Any) -> int:
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return int(value.nbytes)
    if isinstance(value, Mapping):
        return sum(map(_nbytes, value.values()))
    if isinstance(value, (list, tuple, set)):
        return sum(map(_nbytes, value))
    return 0
