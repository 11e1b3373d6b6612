"""All that a folder or file of weights holds, each network by itself."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from .configs import (
    IMAGE_ENCODER,
    IMAGE_ENCODER_V1,
    STAGE_A,
    STAGE_B,
    STAGE_B_V1,
    STAGE_C,
    STAGE_C_V1,
    Architecture,
)
from .detect import Kind, detect
from .fit import without_bundle
from .folder import weights_below
from .read import State
from .source import Source, find_source, parts_in, read_source
from .towers import Tower, tower_in

# Part -> the network. A prior is v1's where it reads CLIP-H.
ARCHITECTURES: dict[str, Architecture[Any]] = {
    "stage_c": STAGE_C,
    "stage_b": STAGE_B,
    "stage_a": STAGE_A,
    "image_encoder": IMAGE_ENCODER,
    "stage_c_v1": STAGE_C_V1,
    "stage_b_v1": STAGE_B_V1,
    "image_encoder_v1": IMAGE_ENCODER_V1,
}
TEXT_ENCODER = "text_encoder"
_TEXT_OF_PRIOR = "cond_mapper.0.weight"
_CLIP_H_WIDTH = 1024


class Held(NamedTuple):
    """One network in a file, or what else it is."""

    part: str | None  # a name of `ARCHITECTURES`, or TEXT_ENCODER; None for strangers
    kind: Kind
    state: State  # as the file has it
    tower: Tower | None = None  # of a text encoder


def weights_in(path: Path) -> list[Path]:
    """Files and folders of one network each: the path itself, or all below a folder of several."""
    if not path.is_dir() or parts_in(path) == [path]:
        return [path]
    return [weights for weights, _ in weights_below(path)] or [path]


def contents_of(path: Path) -> tuple[Source, list[Held]]:
    """The files that a path means, and what they hold. Raises UnreadableCheckpointError."""
    source = find_source(path)
    return source, [held for state in read_source(source) for held in _held_in(state)]


def _held_in(state: State) -> Iterator[Held]:
    kind, tower = detect(state), tower_in(state)
    parts = [part for part, each in ARCHITECTURES.items() if each.kind is kind]
    if parts:
        own = without_bundle(state, kind)
        yield Held(_prior_of(own) if kind is Kind.STAGE_C else parts[0], kind, own)
    elif tower is None or kind is not Kind.TEXT_ENCODER:
        yield Held(None, kind, state)
    if tower is not None:
        yield Held(TEXT_ENCODER, Kind.TEXT_ENCODER, state, tower)
    stage_a = without_bundle(state, Kind.STAGE_A)
    if kind is not Kind.STAGE_A and detect(stage_a) is Kind.STAGE_A:
        yield Held("stage_a", Kind.STAGE_A, stage_a)


def _prior_of(state: State) -> str:
    text = state.get(_TEXT_OF_PRIOR)
    width = text.shape[-1] if text is not None and text.ndim else 0
    return "stage_c_v1" if width == _CLIP_H_WIDTH else "stage_c"
