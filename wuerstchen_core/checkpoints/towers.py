"""CLIP text towers in files of any layout, alone or inside a larger checkpoint.

Found by their names alone: `root + "transformer.resblocks.0.…"` is open_clip's layout,
`root + "encoder.layers.0.…"` that of transformers, whose roots mostly end with `text_model.`.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from torch import Tensor

from .read import State
from .rename import OPEN_CLIP, to_ours

# transformers 5 dropped this from CLIPTextModel's names; published files have it.
PREFIX = "text_model."
# What makes the pooled vector of a prompt; Würstchen never reads it.
PROJECTION = "text_projection.weight"

_EMBEDDING = re.compile(r"(.*?)(embeddings\.)?token_embedding\.weight")
_LAYER = {"open_clip": "transformer.resblocks.{}.", "transformers": "encoder.layers.{}."}
# What lies beside the tower's own tensors: the other tower, and numbers for training.
_BESIDE = ("visual.", "vision_model.", "visual_projection.", "logit_", "attn_mask")


class Place(NamedTuple):
    """Where a file keeps a text tower: what its names begin with, and whose names they are."""

    root: str
    layout: str  # open_clip, or transformers with or without its prefix


class Tower(NamedTuple):
    """A text tower's tensors by transformers' names without `PREFIX`."""

    place: Place
    width: int
    state: State
    projection: Tensor | None


def places_of_towers(names: Iterable[str], layers: int = 1) -> list[Place]:
    """The text towers with at least so many layers among tensors of these names."""
    known = list(names)
    found = []
    for match in filter(None, map(_EMBEDDING.fullmatch, known)):
        place = Place(match[1], "transformers" if match[2] else "open_clip")
        last = place.root + _LAYER[place.layout].format(layers - 1)
        if any(name.startswith(last) for name in known):
            found.append(place)
    return found


def tower_in(state: Mapping[str, Tensor]) -> Tower | None:
    """The widest text tower in a file: beside CLIP-bigG, Stable Diffusion XL has the smaller
    CLIP-L."""
    widths = {place: _width(state, place) for place in places_of_towers(state)}
    if not widths:
        return None
    place = max(widths, key=widths.__getitem__)
    own = {
        name.removeprefix(place.root): value
        for name, value in state.items()
        if name.startswith(place.root)
    }
    own = {name: value for name, value in own.items() if not name.startswith(_BESIDE)}
    if place.layout == "open_clip":
        own = to_ours(own, OPEN_CLIP)
    projection = own.pop(PROJECTION, None)
    if projection is None:
        projection = _projection_beside(state, place)
    if projection is not None and projection.ndim != 2:
        projection = None  # nobody reads it here, so a broken one does no harm
    return Tower(place, widths[place], own, projection)


def _projection_beside(state: Mapping[str, Tensor], place: Place) -> Tensor | None:
    around = place.root.removesuffix(PREFIX)
    if around + PROJECTION in state:
        return state[around + PROJECTION]
    # Stable Cascade's bundles have this one tensor from open_clip, which keeps it transposed.
    stray = state.get(around.removesuffix("transformer.") + "text_projection")
    return stray.T if stray is not None and stray.ndim == 2 else None


def _width(state: Mapping[str, Tensor], place: Place) -> int:
    embeddings = "embeddings." if place.layout == "transformers" else ""
    return (0, *state[f"{place.root}{embeddings}token_embedding.weight"].shape)[-1]
