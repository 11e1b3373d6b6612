"""LoRA files as each trainer writes them, and what they change, in formulas of their own."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor

RANK, ALPHA = 4, 2.0
# Linears of each place of Stage C, a 1×1 and a depthwise convolution.
ATTENTION = [f"blocks.2.attention.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0")]
OTHERS = ["cond_mapper.0", "blocks.0.channelwise.4", "blocks.1.mapper", "blocks.2.kv_mapper.1"]
CONVOLUTIONS = ["projection", "blocks.0.depthwise"]
GENERATOR = torch.Generator().manual_seed(5)

Weights = dict[str, Tensor]


class Written(NamedTuple):
    """A file's tensors, its metadata, and what it makes of each weight that it changes."""

    tensors: Weights
    expected: Weights
    about: dict[str, str] | None = None


def noise(*shape: int) -> Tensor:
    return 0.5 * torch.randn(shape, generator=GENERATOR)


def pair(weight: Tensor, rank: int = RANK) -> tuple[Tensor, Tensor]:
    """down and up, as for a linear or a convolution."""
    if weight.ndim == 2:
        return noise(rank, weight.shape[1]), noise(weight.shape[0], rank)
    return noise(rank, *weight.shape[1:]), noise(weight.shape[0], rank, 1, 1)


def product(down: Tensor, up: Tensor, weight: Tensor) -> Tensor:
    """up·down of each kernel position, by sums that are written out."""
    down = down.reshape(len(down), weight.shape[1], -1)
    up = up.reshape(len(up), -1)
    return torch.einsum("or,rik->oik", up.double(), down.double()).reshape(weight.shape)


def peft(state: Weights) -> Written:
    """What diffusers' research script saves: no alpha, so that the scale is 1."""
    tensors, expected = {}, {}
    for module in ATTENTION:
        weight = state[f"{module}.weight"]
        down, up = pair(weight)
        tensors[f"prior.{module}.lora_A.weight"] = down
        tensors[f"prior.{module}.lora_B.weight"] = up
        expected[f"{module}.weight"] = weight + product(down, up, weight)
    return Written(tensors, expected)


def peft_with_metadata(state: Weights) -> Written:
    """alpha only in diffusers' metadata, another one for one module."""
    plain = peft(state)
    own = ATTENTION[0]
    config = {"prior.r": RANK, "prior.lora_alpha": 8, "prior.alpha_pattern": {own: 16}}
    expected = {
        name: state[name] + (value - state[name]) * ((16 if own in name else 8) / RANK)
        for name, value in plain.expected.items()
    }
    about = {"format": "pt", "lora_adapter_metadata": json.dumps(config)}
    return Written(plain.tensors, expected, about)


def processors(state: Weights) -> Written:
    """diffusers before November 2023."""
    tensors, expected = {}, {}
    for module in ATTENTION:
        weight = state[f"{module}.weight"]
        down, up = pair(weight)
        name = module.replace("attention.", "attention.processor.").removesuffix(".0")
        tensors[f"{name}_lora.down.weight"] = down
        tensors[f"{name}_lora.up.weight"] = up
        expected[f"{module}.weight"] = weight + product(down, up, weight)
    return Written(tensors, expected)


def kohya_attention(state: Weights) -> Written:
    return kohya(state, ATTENTION)


def kohya(state: Weights, modules: Sequence[str] = (*ATTENTION, *OTHERS, *CONVOLUTIONS)) -> Written:
    """OneTrainer in kohya's style, on linears and convolutions of every place."""
    tensors, expected = {}, {}
    for module in modules:
        weight = state[f"{module}.weight"]
        down, up = pair(weight)
        name = "lora_unet_" + module.replace(".", "_")
        tensors[f"{name}.lora_down.weight"] = down.half()
        tensors[f"{name}.lora_up.weight"] = up.half()
        tensors[f"{name}.alpha"] = torch.tensor(ALPHA)
        delta = product(down.half(), up.half(), weight)
        expected[f"{module}.weight"] = weight + delta * (ALPHA / RANK)
    return Written(tensors, expected)


def loha(state: Weights) -> Written:
    tensors, expected = {}, {}
    for module in (*ATTENTION, *OTHERS, *CONVOLUTIONS):
        weight = state[f"{module}.weight"]
        (b1, a1), (b2, a2) = pair(weight), pair(weight)
        name = f"prior.{module}"
        for key, value in {"w1_a": a1, "w1_b": b1, "w2_a": a2, "w2_b": b2}.items():
            tensors[f"{name}.hada_{key}"] = value
        tensors[f"{name}.alpha"] = torch.tensor(ALPHA)
        both = product(b1, a1, weight) * product(b2, a2, weight)
        expected[f"{module}.weight"] = weight + both * (ALPHA / RANK)
    return Written(tensors, expected)


def loha_tucker(state: Weights) -> Written:
    """A depthwise kernel from cores: W[o,i,k,l] = Σ t[r,s,k,l]·a[r,o]·b[s,i]."""
    weight = state["blocks.0.depthwise.weight"]
    out, into, *kernel = weight.shape
    name, tensors, both = "lora_unet_blocks_0_depthwise", {}, torch.ones(1)
    for number in (1, 2):
        core, a, b = noise(RANK, RANK, *kernel), noise(RANK, out), noise(RANK, into)
        tensors |= {f"{name}.hada_t{number}": core, f"{name}.hada_w{number}_a": a}
        tensors[f"{name}.hada_w{number}_b"] = b
        rows = [
            sum(core[r, s] * a[r, o] * b[s, i] for r in range(RANK) for s in range(RANK))
            for o in range(out)
            for i in range(into)
        ]
        both = both * torch.stack(rows).reshape(weight.shape)
    return Written(tensors, {"blocks.0.depthwise.weight": weight + both})


def lokr(state: Weights) -> Written:
    """Each way to store the factors: whole, decomposed, and of a convolution."""
    tensors, expected = {}, {}
    name = "blocks.2.attention.to_q"
    weight = state[f"{name}.weight"]
    first, second = noise(8, 8), noise(weight.shape[0] // 8, weight.shape[1] // 8)
    tensors |= {f"prior.{name}.lokr_w1": first, f"prior.{name}.lokr_w2": second}
    tensors[f"prior.{name}.alpha"] = torch.tensor(3.0)  # which counts for nothing here
    expected[f"{name}.weight"] = weight + kron(first, second)

    name = "blocks.0.channelwise.4"
    weight = state[f"{name}.weight"]
    out, into = weight.shape[0] // 4, weight.shape[1] // 4
    first, a, b = noise(4, 4), noise(out, RANK), noise(RANK, into)
    tensors |= {f"prior.{name}.lokr_w1": first, f"prior.{name}.lokr_w2_a": a}
    tensors |= {f"prior.{name}.lokr_w2_b": b, f"prior.{name}.alpha": torch.tensor(ALPHA)}
    expected[f"{name}.weight"] = weight + kron(first, a @ b) * (ALPHA / RANK)

    name = "blocks.1.mapper"
    weight = state[f"{name}.weight"]
    a1, b1 = noise(4, 2), noise(2, 4)
    a, b = noise(weight.shape[0] // 4, 2), noise(2, weight.shape[1] // 4)
    tensors |= {f"prior.{name}.lokr_w1_a": a1, f"prior.{name}.lokr_w1_b": b1}
    tensors |= {f"prior.{name}.lokr_w2_a": a, f"prior.{name}.lokr_w2_b": b}
    tensors[f"prior.{name}.alpha"] = torch.tensor(ALPHA)
    expected[f"{name}.weight"] = weight + kron(a1 @ b1, a @ b) * (ALPHA / 2)

    name = "blocks.0.depthwise"
    weight = state[f"{name}.weight"]
    first, second = noise(8, 1), noise(weight.shape[0] // 8, 1, 3, 3)
    tensors |= {f"prior.{name}.lokr_w1": first, f"prior.{name}.lokr_w2": second}
    stacked = torch.cat([factor * second for factor in first.flatten()])
    expected[f"{name}.weight"] = weight + stacked
    return Written(tensors, expected)


def kron(first: Tensor, second: Tensor) -> Tensor:
    """Block (i, j) is first[i, j] · second."""
    return torch.cat([torch.cat([x * second for x in row], dim=1) for row in first])


def dora_rows(state: Weights) -> Written:
    """PEFT's: the norm of each row is trained apart from its direction."""
    plain = peft(state)
    expected = {}
    for name, turned in plain.expected.items():
        magnitude = 1 + noise(len(turned)).double()
        plain.tensors[f"prior.{name.removesuffix('.weight')}.lora_magnitude_vector.weight"] = (
            magnitude.float()
        )
        rows = [row / row.square().sum().sqrt() for row in turned]
        expected[name] = torch.stack(rows) * magnitude.float()[:, None]
    return Written(plain.tensors, expected)


def dora_columns(state: Weights) -> Written:
    """OneTrainer's own: the norm of each column."""
    plain = kohya(state)
    expected = dict(plain.expected)
    for module in ATTENTION:
        turned = plain.expected[f"{module}.weight"]
        magnitude = 1 + noise(1, turned.shape[1])
        plain.tensors[f"lora_unet_{module.replace('.', '_')}.dora_scale"] = magnitude
        expected[f"{module}.weight"] = turned / turned.square().sum(dim=0).sqrt() * magnitude
    return Written(plain.tensors, expected)


def extracted(state: Weights) -> Written:
    """What ComfyUI's extractor saves: LoRAs of large weights, and small ones as they are."""
    down, up = pair(state["blocks.0.channelwise.4.weight"])
    weight, bias = noise(*state["projection.weight"].shape), noise(*state["out.1.bias"].shape)
    tensors = {
        "diffusion_model.blocks.0.channelwise.4.lora_down.weight": down,
        "diffusion_model.blocks.0.channelwise.4.lora_up.weight": up,
        "diffusion_model.projection.diff": weight,
        "diffusion_model.out.1.diff_b": bias,
    }
    large = state["blocks.0.channelwise.4.weight"]
    expected = {
        "blocks.0.channelwise.4.weight": large + product(down, up, large),
        "projection.weight": state["projection.weight"] + weight,
        "out.1.bias": state["out.1.bias"] + bias,
    }
    return Written(tensors, expected)


FORMATS: tuple[Callable[[Weights], Written], ...] = (
    peft,
    peft_with_metadata,
    processors,
    kohya,
    loha,
    loha_tucker,
    lokr,
    dora_rows,
    dora_columns,
    extracted,
)


def write(path: Path, written: Written) -> Path:
    if path.suffix == ".safetensors":
        tensors = {name: value.contiguous() for name, value in written.tensors.items()}
        save_file(tensors, path, metadata=written.about)
    else:
        torch.save(written.tensors, path)
    return path
