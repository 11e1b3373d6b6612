"""What a loader puts on its wire."""

import copy
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from torch import nn

from ..wuerstchen_core.compile import compiled
from ..wuerstchen_core.guidance import Guidance
from ..wuerstchen_core.layers import NO_WRAPS, Wraps
from ..wuerstchen_core.lora import (
    NO_CHANGES,
    Changed,
    Changes,
    together,
    with_changes,
)
from ..wuerstchen_core.optimize import PLAIN, Optimization
from ..wuerstchen_core.residency import weight_bytes
from . import runtime

Network = TypeVar("Network")


class Weights(Generic[Network]):
    """A network that is read when it is first asked for; parts that keep it alike share one.

    beside: weights that hold most of its tensors; it has only those that LoRAs change.
    """

    def __init__(
        self, read: Callable[[], Network], beside: "Weights[Network] | None" = None
    ) -> None:
        self._read = read
        self.beside = beside
        self._lock = threading.Lock()
        self.network: Network | None = None  # once it has been read

    def get(self) -> Network:
        """Raises CheckpointError where the weights cannot be used."""
        with self._lock:
            if self.network is None:
                with runtime.memory_in_words():
                    self.network = self._read()
            return self.network

    @property
    def nbytes(self) -> int:
        """What the weights of its own take in memory; 0 before they are read."""
        module, other = self._module, self.beside._module if self.beside else None
        return weight_bytes(module, other) if module is not None else 0

    @property
    def _module(self) -> nn.Module | None:
        module = getattr(self.network, "network", self.network)  # a text encoder's is inside
        return module if isinstance(module, nn.Module) else None


class Stored(NamedTuple):
    """A part's weights as files hold them.

    open: gives them with their config (`Weights` or `TowerWeights`), mostly still on disk. make:
    gives the network of such weights, run as an optimization says but for what concerns sampling.
    """

    open: Callable[[], Any]
    make: Callable[[Any, Optimization], Any]


class Part(Generic[Network]):
    """One part of the model and how it is to run; its weights are read when a node first uses it.

    folder: of weights that it was chosen from; it may hold more than networks.
    changes, made_of: the LoRAs on it, and in words what it is.
    guidance, wraps: how samplers use it; see `generate.SamplerSettings`.
    """

    guidance = Guidance()
    wraps: Wraps = NO_WRAPS
    changes: Changes = NO_CHANGES

    def __init__(
        self,
        read: Callable[[Optimization], Network],
        folder: Path | None = None,
        optimization: Optimization = PLAIN,
        stored: Stored | None = None,
    ) -> None:
        """read: gives the network, run as an optimization says but for what concerns sampling.
        stored: what LoRAs and merging read; None where there is no use for them."""
        self.folder = folder
        self.made_of = folder.name if folder else "weights"
        self.optimization = optimization
        self.stored = stored
        self._read = read
        self._plain = self._unread()
        self.weights = self._changed()
        self._twin = self._compiled()

    def optimized(self, optimization: Optimization) -> "Part[Network]":
        """The part as it runs with `optimization`; this one stays as it is for other branches.

        Both share what they keep alike.
        """
        part = copy.copy(self)
        part.optimization = optimization
        if part._kept() != self._kept():
            part._plain = part._unread()
            part.weights = part._changed()
        part._twin = part._compiled()
        return part

    def changed(self, changes: Changes, made_of: str) -> "Part[Network]":
        """The part with more changes of its weights; all that are not changed are shared with
        this one, which stays as it is. made_of: what to call it."""
        part = copy.copy(self)
        part.changes, part.made_of = together(self.changes, changes), made_of
        if not part._shares():
            part._plain = part._unread()
        part.weights = part._changed()
        part._twin = part._compiled()
        return part

    def content(self) -> Any:
        """Its weights with their config, changed but not optimized, mostly still on disk.

        Raises CheckpointError where they cannot be used.
        """
        return self.opener()

    @property
    def opener(self) -> Callable[[], Any]:
        """What gives `content`, without holding on to a network that was read."""
        assert self.stored is not None, "this part has no use for its stored weights"
        opened, changes = self.stored.open, self.changes

        def content() -> Any:
            weights = opened()
            if not changes:
                return weights
            return replace(weights, state=Changed(weights.state, changes))

        return content

    def sampled(
        self, guidance: Guidance | None = None, wraps: Wraps | None = None
    ) -> "Part[Network]":
        """The same part, sampled otherwise; None leaves it as it is."""
        part = copy.copy(self)
        part.guidance = self.guidance if guidance is None else guidance
        part.wraps = self.wraps if wraps is None else wraps
        return part

    def _kept(self) -> Optimization:
        """What is done to the weights; parts that agree in it share them. Those that stay in
        their place serve a compiled network too."""
        kept = replace(self.optimization, step_cache=0.0, guidance_end=1.0)
        return replace(kept, compile="off") if kept.residency == "resident" else kept

    def _shares(self) -> bool:
        """Whether changed weights can lie beside the unchanged ones of another network."""
        return self._kept().residency == "resident"

    def _unread(self) -> Weights[Network]:
        """What is read: with the changes only where they cannot be made afterwards."""
        read, kept, stored = self._read, self._kept(), self.stored
        if stored is not None and self.changes and not self._shares():
            opened = self.opener
            return Weights(lambda: stored.make(opened(), kept))
        return Weights(lambda: read(kept))

    def _changed(self) -> Weights[Network]:
        """What is read, with the changes."""
        plain, stored, changes, kept = self._plain, self.stored, self.changes, self._kept()
        if not changes or not self._shares():
            return plain
        assert stored is not None
        make = self._with_changes  # no `self` in the lambda: a cycle would keep the weights alive
        return Weights(lambda: make(plain.get(), stored, changes, kept), beside=plain)

    def _compiled(self) -> Weights[Network] | None:
        """What runs compiled on the same weights, where that is still to be done."""
        weights, wanted = self.weights, self.optimization.compile
        if wanted == self._kept().compile:
            return None
        graphs = wanted == "cuda_graphs"
        return Weights(lambda: compiled(weights.get(), graphs))  # type: ignore[type-var]

    @staticmethod
    def _with_changes(
        network: Network, stored: Stored, changes: Changes, kept: Optimization
    ) -> Network:
        """What is read -> the same with the changes, beside it."""
        return with_changes(network, stored.open(), changes, kept.storage)

    def get(self) -> Network:
        """The network. Raises CheckpointError where its weights cannot be used."""
        return (self._twin or self.weights).get()

    @property
    def read_ahead(self) -> Callable[[], object] | None:
        """What reads the weights before a node needs them; None once they are read."""
        return self._plain.get if self._plain.network is None else None

    def ready(self, shape: Sequence[int]) -> Network:
        """The network, to run at once on a latent B×C×h×w. ComfyUI makes room for that."""
        return self.get()
