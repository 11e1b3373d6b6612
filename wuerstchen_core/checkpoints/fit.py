"""Whether weights are those of a network, and putting them in."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..errors import ForeignCheckpointError
from ..residency import Network
from .detect import Kind, detect
from .read import State

_NAMED_AT_MOST = 8
# What comes before a part's names in ComfyUI's checkpoints, which hold several models. That of
# Stable Cascade's Stage B brings Stage A.
_BUNDLED = {
    Kind.STAGE_C: "model.diffusion_model.",
    Kind.STAGE_B: "model.diffusion_model.",
    Kind.STAGE_A: "vae.",
}
# Counters and constants that inference never reads; some savers leave them out.
_IDLE = ("num_batches_tracked", "position_ids")


def state_of_kind(states: list[State], kind: Kind, path: Path) -> State:
    """The state dict of the wanted kind. Raises ForeignCheckpointError, which says what came."""
    for state in states:
        own = without_bundle(state, kind)
        if detect(own) is kind:
            return own
    raise foreign(states[0], kind, path)


def without_bundle(state: State, kind: Kind) -> State:
    """A part's own tensors in a checkpoint of several models; any other state dict as it is."""
    prefix = _BUNDLED.get(kind, "")
    own = {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}
    return own or state


def foreign(state: State, kind: Kind, path: Path) -> ForeignCheckpointError:
    """The error that says what came instead of a kind."""
    other = detect(state)
    if other is Kind.UNKNOWN:
        names = ", ".join(list(state)[:3])
        return ForeignCheckpointError(f"{path} is not {kind.title}: {other.advice} ({names}, …).")
    return ForeignCheckpointError(
        f"{path} is {other.title}, and {kind.title} is expected here: {other.advice}."
    )


def problems_of(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """What is missing, unexpected, of another shape, or quantised to integers.

    Each list is cut to a readable length.
    """
    missing = [n for n in expected if n not in state and not n.endswith(_IDLE)]
    unexpected = [n for n in state if n not in expected and not n.endswith(_IDLE)]
    reshaped = [
        f"{name} is {_times(state[name])}, expected {_times(value)}"
        for name, value in expected.items()
        if name in state and state[name].shape != value.shape
    ]
    integers = [
        name
        for name, value in expected.items()
        if value.is_floating_point() and name in state and not state[name].is_floating_point()
    ]
    found = {
        "missing": missing,
        "unexpected": unexpected,
        "of another shape": reshaped,
        "quantised to integers": integers,
    }
    return [
        f"{len(names)} tensors {what} ({', '.join(names[:_NAMED_AT_MOST])}"
        f"{', …' if len(names) > _NAMED_AT_MOST else ''})"
        for what, names in found.items()
        if names
    ]


def _times(value: Tensor) -> str:
    return "×".join(map(str, value.shape)) or "a single number"


def completed(state: State, expected: Mapping[str, Tensor]) -> State:
    """Exactly the expected names: counters that no file needs to hold start at zero."""
    return {
        name: state[name] if name in state else torch.zeros(value.shape, dtype=value.dtype)
        for name, value in expected.items()
    }


def filled(build: Callable[[], Network], state: Mapping[str, Tensor]) -> Network:
    """Builds a network without memory and puts the weights in, without a copy."""
    with torch.device("meta"):
        network = build()
    network.load_state_dict(state, assign=True)
    return network
