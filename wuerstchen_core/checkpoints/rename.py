"""Tensor names of the layouts that files come in; one table a layout.

Networks go by the names of diffusers, text towers by those of transformers 5.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import MismatchedCheckpointError


@dataclass(frozen=True)
class Layout:
    """How one layout differs from ours: pieces of names in pairs (theirs, ours).

    packed: queries, keys and values stacked in one tensor, and the three names that it stands for.
    transposed: whole names of matrices that are stored the other way round.
    """

    pieces: tuple[tuple[str, str], ...]
    packed: tuple[str, tuple[str, str, str]]
    transposed: tuple[tuple[str, str], ...] = ()


# dome272/Wuerstchen: torch's MultiheadAttention, and another name for the codebook.
ORIGINAL = Layout(
    pieces=(
        (".attention.attn.out_proj.", ".attention.to_out.0."),
        ("vquantizer.codebook.", "vquantizer.embedding."),
    ),
    packed=(
        ".attention.attn.in_proj_",
        (".attention.to_q.", ".attention.to_k.", ".attention.to_v."),
    ),
)

# mlfoundations/open_clip, and Stable Diffusion's single files.
OPEN_CLIP = Layout(
    pieces=(
        ("transformer.resblocks.", "encoder.layers."),
        (".attn.out_proj.", ".self_attn.out_proj."),
        (".ln_1.", ".layer_norm1."),
        (".ln_2.", ".layer_norm2."),
        (".mlp.c_fc.", ".mlp.fc1."),
        (".mlp.c_proj.", ".mlp.fc2."),
        ("token_embedding.weight", "embeddings.token_embedding.weight"),
        ("positional_embedding", "embeddings.position_embedding.weight"),
        ("ln_final.", "final_layer_norm."),
    ),
    packed=(
        ".attn.in_proj_",
        (".self_attn.q_proj.", ".self_attn.k_proj.", ".self_attn.v_proj."),
    ),
    transposed=(("text_projection", "text_projection.weight"),),
)


def to_diffusers_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names of the original or the diffusers layout -> diffusers names; data is not copied."""
    return to_ours(state, ORIGINAL)


def to_ours(state: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """A layout's names -> ours; names that are ours already stay. Data is not copied."""
    packed, unpacked = layout.packed
    transposed = dict(layout.transposed)
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        if name in transposed and value.ndim == 2:
            renamed[transposed[name]] = value.T
            continue
        for theirs, ours in layout.pieces:
            name = name.replace(theirs, ours)
        if packed in name and value.ndim and value.shape[0] % 3 == 0:
            for ours, part in zip(unpacked, value.chunk(3), strict=True):
                renamed[name.replace(packed, ours)] = part
        else:
            renamed[name] = value
    return renamed


def from_ours(state: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """Our names -> a layout's. Each query needs its key and its value.

    Raises MismatchedCheckpointError where they are stored in different dtypes.
    """
    packed, (query, *others) = layout.packed
    transposed = {ours: theirs for theirs, ours in layout.transposed}
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        if name in transposed:
            renamed[transposed[name]] = value.T
            continue
        if any(other in name for other in others):
            continue  # packed with its query
        if query in name:
            parts = [value, *(state[name.replace(query, other)] for other in others)]
            if len({part.dtype for part in parts}) > 1:
                raise MismatchedCheckpointError(
                    f"{name} is stored in {value.dtype} and its key or value in another dtype, "
                    "which one packed tensor cannot hold; choose a dtype for all."
                )
            value, name = torch.cat(parts), name.replace(query, packed)
        for theirs, ours in layout.pieces:
            name = name.replace(ours, theirs)
        renamed[name] = value
    return renamed


def is_in(layout: Layout, names: Iterable[str]) -> bool:
    """Whether any of the names is spelled in this layout."""
    theirs = (layout.packed[0], *(piece for piece, _ in layout.pieces))
    return any(piece in name for name in names for piece in theirs)
