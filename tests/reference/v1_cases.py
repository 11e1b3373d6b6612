"""What `record_v1.py` records of the original Würstchen v1, and its tests compare."""

import hashlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

# The published shapes in small; 16 heads, as the shapes do not tell.
PAELLA: dict[str, Any] = {
    "c_in": 24,
    "c_out": 24,
    "num_labels": 40,
    "c_cond": 48,
    "c_hidden": [32, 64, 64],
    "nhead": [-1, 16, 16],
    "blocks": [1, 2, 1],
    "byt5_embd": 56,
}
PRIOR: dict[str, Any] = {"c": 64, "c_cond": 56, "depth": 2, "nhead": 1}

TOKENS = (16, 24)
CELLS = (3, 6)
SEED = 35  # with it no two tokens are nearly as likely, which rounding could swap
# Of the original's `sample`, beside its inputs.
SAMPLED = {
    "guided": {"steps": 5, "cfg": (3.0, 1.5), "temperature": (1.0, 0.6)},
    "from_picture": {"steps": 3, "cfg": (2.0, 2.0), "temperature": (0.7, 0.3), "t_start": 0.6},
}
PRIOR_STEPS, PRIOR_CFG = 6, 3.0


def inputs() -> dict[str, Tensor]:
    """What the networks are given; the second of each pair is the unconditional one."""
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    return {
        "tokens": torch.randint(PAELLA["num_labels"], (2, *TOKENS), generator=generator),
        "embedding": noise(2, 16, *CELLS),
        "text": noise(2, 77, PAELLA["byt5_embd"]),
        "times": torch.tensor([0.7, 0.3]),
    }


def tamed_head(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The prior divides by a head's output, which random weights would let pass zero."""
    return {**weights, "out.1.weight": weights["out.1.weight"] * 0.1}


def digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def tensors_of(state: dict[str, Tensor]) -> str:
    """Names and shapes, in any order."""
    return digest(sorted(f"{name} {tuple(value.shape)}" for name, value in state.items()))


def layers_of(backbone: nn.Module) -> str:
    """The convolutions and norms of an EfficientNet, in order, with all that they do."""
    lines = []
    for name, layer in backbone.named_modules():
        if isinstance(layer, nn.Conv2d):
            shape = tuple(layer.weight.shape)
            lines.append(f"{name} {shape} {layer.stride} {layer.padding} {layer.groups}")
        elif isinstance(layer, nn.BatchNorm2d):
            lines.append(f"{name} {layer.num_features} {layer.eps}")
    return digest(lines)
