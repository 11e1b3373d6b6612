"""Training a LoRA: low-rank pairs beside a network's frozen linears (Hu et al. 2021)."""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ..files import write_atomically


class LoraLinear(nn.Module):
    """A frozen linear and the low-rank change that is trained; it starts without any."""

    def __init__(self, linear: nn.Linear, rank: int) -> None:
        super().__init__()
        self.linear = linear.requires_grad_(False)
        self.down = nn.Linear(linear.in_features, rank, bias=False)
        self.up = nn.Linear(rank, linear.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + self.up(self.down(x))


def add_lora(network: nn.Module, endings: Sequence[str], rank: int) -> None:
    """Freezes a network and puts pairs beside its linears whose names end so."""
    network.requires_grad_(False)
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.Linear) and name.endswith(tuple(endings)):
            owner, _, leaf = name.rpartition(".")
            setattr(network.get_submodule(owner), leaf, LoraLinear(module, rank))


def save_lora(network: nn.Module, path: Path, about: str) -> None:
    """Writes the pairs of a network with `add_lora` as diffusers does, float16. about: for the
    file's metadata."""
    tensors = {}
    for name, module in network.named_modules():
        if isinstance(module, LoraLinear):
            for letter, linear in (("A", module.down), ("B", module.up)):
                weight = linear.weight.detach().to("cpu", torch.float16)
                tensors[f"prior.{name}.lora_{letter}.weight"] = weight.contiguous()
    path.parent.mkdir(parents=True, exist_ok=True)
    about_file = {"format": "pt", "modelspec.architecture": "wuerstchen-v2-prior/lora"}
    with write_atomically(path) as partial:
        save_file(tensors, partial, metadata={**about_file, "modelspec.description": about})
