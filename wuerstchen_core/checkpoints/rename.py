"""Tensor names of the other layouts -> the networks' own, which are those of diffusers."""

from collections.abc import Mapping

from torch import Tensor

# dome272/Wuerstchen: torch's MultiheadAttention, and another name for the codebook.
_ORIGINAL = (
    (".attention.attn.out_proj.", ".attention.to_out.0."),
    ("vquantizer.codebook.", "vquantizer.embedding."),
)
_PACKED = ".attention.attn.in_proj_"


def to_diffusers_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names of the original or the diffusers layout -> diffusers names; data is not copied."""
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        if _PACKED in name:
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                renamed[name.replace(_PACKED, f".attention.to_{letter}.")] = part
            continue
        for original, ours in _ORIGINAL:
            name = name.replace(original, ours)
        renamed[name] = value
    return renamed
