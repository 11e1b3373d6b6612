"""Weights with LoRAs applied, and networks that share with another what no LoRA changes."""

import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..computed import Computed
from ..errors import LoraError
from ..fold import fold_embedding_mappers, read_to_fold
from ..quantise import quantiser
from ..residency import Network, twin
from ..stage_b import StageB
from ..text_encoder import TextEncoder
from .adapters import Adapter
from .match import Changes


class Changed(Computed):
    """Weights, of which LoRAs change some.

    All changes are those of the original weight, in float32, and add up: their order does not
    matter. What is not changed is passed on as it is.
    """

    def __init__(self, original: Mapping[str, Tensor], changes: Changes) -> None:
        super().__init__(original)
        self._changes = changes

    def __getitem__(self, name: str) -> Tensor:
        """Raises LoraError where a change is not finite."""
        tensor = self.original[name]
        changes = self._changes.get(name)
        if not changes:
            return tensor
        changed = tensor.float() + sum_of(changes, tensor)
        if not changed.isfinite().all():
            raise LoraError(
                f"the LoRAs make {name} infinite; lower the strength, or leave one out."
            )
        return changed


def sum_of(changes: Iterable[tuple[Adapter, float]], weight: Tensor) -> Tensor:
    """What LoRAs together add to a weight, float32."""
    total = torch.zeros(weight.shape, device=weight.device)
    for adapter, strength in changes:
        total.add_(adapter.delta(weight), alpha=strength)
    return total


def together(first: Changes, second: Changes) -> Changes:
    """The changes of both."""
    names = dict.fromkeys((*first, *second))
    return {name: (*first.get(name, ()), *second.get(name, ())) for name in names}


class Opened(Protocol):
    """Weights with their config, by the names of the unfolded network."""

    @property
    def config(self) -> Any: ...

    @property
    def state(self) -> Mapping[str, Tensor]: ...


def with_changes(network: Any, weights: Opened, changes: Changes, storage: str) -> Any:
    """A loaded Stage B or C, or a text encoder -> one that LoRAs change.

    weights: those that `network` was made of; the changed ones are computed from them, so that
    they are rounded, folded and stored in 8 bits once. All other tensors are shared.
    storage: of `Optimization`, as the network was stored.
    """
    if isinstance(network, TextEncoder):
        encoder = copy.copy(network)
        encoder.network = _beside(network.network, weights, changes, storage)
        return encoder
    return _beside(network, weights, changes, storage)


def changed_weights(
    weights: Opened, changes: Changes, folded: bool
) -> Iterator[tuple[str, Tensor]]:
    """All weights of a network that depend on the changed ones. folded: see `fold.py`."""
    state = Changed(weights.state, changes)
    if folded:
        read = read_to_fold(changes, state, weights.config)
        part = {name: state[name] for name in read}
        yield from fold_embedding_mappers(part, weights.config, torch.float32).items()
    else:
        for name in changes:
            yield name, state[name]


def _beside(network: Network, weights: Opened, changes: Changes, storage: str) -> Network:
    made = twin(network)
    quantise = quantiser(made, storage)
    # transformers 4 puts `text_model.` before the names of a tower.
    names = {name.removeprefix("text_model."): name for name, _ in made.named_parameters()}
    folded = isinstance(network, StageB) and network.folded
    for plain, value in changed_weights(weights, changes, folded):
        owner, _, leaf = names[plain].rpartition(".")
        module = made.get_submodule(owner)
        replaced = getattr(module, leaf)
        placed = value.to(replaced.device, replaced.dtype, copy=True)
        setattr(module, leaf, nn.Parameter(placed, requires_grad=False))
        if quantise is not None and leaf == "weight":
            quantise(module)
    return made
