"""Random LoRA files for the demo's parts, in a models folder of their own."""

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import save_file


def random_lora(
    path: Path, state: dict[str, torch.Tensor], ends: Iterable[str], scale: float, prefix: str
) -> Path:
    """Changes the weights whose names end so; kohya's names."""
    generator = torch.Generator().manual_seed(len(str(path.name)))
    tensors = {}
    for name, value in state.items():
        module = name.removesuffix(".weight")
        if module.endswith(tuple(ends)):
            key = prefix + module.replace(".", "_")
            into = value.flatten(1).shape[1]
            tensors[f"{key}.lora_down.weight"] = torch.randn(4, into, generator=generator)
            up = torch.randn(len(value), 4, generator=generator)
            tensors[f"{key}.lora_up.weight"] = scale * up * value.std() / 2
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    return path
