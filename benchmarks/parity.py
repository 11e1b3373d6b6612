"""How far each stage is from diffusers', with the same random weights in float32 on the CPU.

    python benchmarks/parity.py           # small networks, seconds
    python benchmarks/parity.py --full    # the published sizes at 1024²: minutes, 12 GB of memory

Stage C and B are compared by their two heads before the division, which amplifies rounding.
Needs diffusers and transformers (`pip install -e ".[test]"`).
"""

import argparse
import gc
import time
from collections.abc import Callable

import torch
from diffusers.pipelines.deprecated.wuerstchen.modeling_paella_vq_model import PaellaVQModel
from diffusers.pipelines.deprecated.wuerstchen.modeling_wuerstchen_diffnext import (
    WuerstchenDiffNeXt,
)
from diffusers.pipelines.deprecated.wuerstchen.modeling_wuerstchen_prior import WuerstchenPrior
from torch import Tensor, nn

from comfyui_wuerstchen.wuerstchen_core.fold import fold_embedding_mappers
from comfyui_wuerstchen.wuerstchen_core.stage_a import StageA, StageAConfig
from comfyui_wuerstchen.wuerstchen_core.stage_b import StageB, StageBConfig
from comfyui_wuerstchen.wuerstchen_core.stage_c import StageC, StageCConfig

SMALL_C = {"c": 128, "depth": 4, "nhead": 2, "c_cond": 64}
FULL_C = {"c": 1536, "depth": 32, "nhead": 24, "c_cond": 1280}
SMALL_B = {
    "c_hidden": (32, 64, 128, 128),
    "nhead": (-1, 1, 2, 2),
    "blocks": (1, 2, 2, 1),
    "c_cond": 64,
    "clip_embd": 64,
}
SMALL_A = {"embed_dim": 64, "bottleneck_blocks": 2, "num_vq_embeddings": 64}


def filled(network: nn.Module) -> nn.Module:
    """Random weights that keep activations near unit scale."""
    generator = torch.Generator().manual_seed(0)
    for value in network.parameters():
        fan_in = value[0].numel() if value.ndim > 1 else 100
        value.data.normal_(0, fan_in**-0.5, generator=generator)
    return network.eval()


def twin(ours: Callable[[], nn.Module], state: dict[str, Tensor]) -> nn.Module:
    """Our network around the same tensors, not a copy of them."""
    with torch.device("meta"):
        network = ours()
    network.load_state_dict(state, assign=True)
    return network.eval()


def report(name: str, found: Tensor, expected: Tensor, seconds: tuple[float, float]) -> None:
    error = ((found - expected).abs().max() / expected.abs().max()).item()
    ours, theirs = seconds
    print(f"{name:<28} relative error {error:.1e}   {ours:7.2f} s  diffusers {theirs:7.2f} s")


def timed(call: Callable[[], Tensor]) -> tuple[Tensor, float]:
    started = time.perf_counter()
    result = call()
    return result, time.perf_counter() - started


def stage_c(full: bool) -> None:
    config = FULL_C if full else SMALL_C
    reference = filled(WuerstchenPrior(**config))
    ours = twin(lambda: StageC(StageCConfig(**config)), reference.state_dict())
    grid = 24 if full else 6
    x, t, text = (
        torch.randn(1, 16, grid, grid),
        torch.tensor([0.6]),
        torch.randn(1, 77, config["c_cond"]),
    )
    heads: list[Tensor] = []
    reference.out.register_forward_hook(lambda module, args, output: heads.append(output))
    _, theirs = timed(lambda: reference(x, t, text))
    found, seconds = timed(lambda: torch.cat(ours.heads(x, t, ours.prepare(text)), dim=1))
    report("Stage C heads", found, heads[0], (seconds, theirs))


def stage_b(full: bool) -> None:
    config = {} if full else SMALL_B
    lists = {k: list(v) if isinstance(v, tuple) else v for k, v in config.items()}
    reference = filled(WuerstchenDiffNeXt(**lists))
    state, ours_config = reference.state_dict(), StageBConfig(**config)
    size, grid = (256, 24) if full else (64, 6)
    x, t = torch.randn(1, 4, size, size), torch.tensor([0.6])
    embedding = torch.randn(1, 16, grid, grid)
    text = torch.randn(1, 77, ours_config.clip_embd)

    def run(network: StageB) -> Tensor:
        return torch.cat(network.heads(x, t, network.prepare(embedding, (size, size), text)), dim=1)

    expected, theirs = timed(
        lambda: torch.cat(reference(x, t, embedding, text, return_noise=False), dim=1)
    )
    found, seconds = timed(lambda: run(twin(lambda: StageB(ours_config), state)))
    report("Stage B heads", found, expected, (seconds, theirs))
    folded_state = fold_embedding_mappers(state, ours_config)
    folded = twin(lambda: StageB(ours_config, folded=True), folded_state)
    found, seconds = timed(lambda: run(folded))
    report("Stage B heads, folded", found, expected, (seconds, theirs))


def stage_a(full: bool) -> None:
    config = {} if full else SMALL_A
    reference = filled(PaellaVQModel(**config))
    for name, value in reference.named_parameters():
        if name.endswith("gammas"):
            value.data.mul_(0.3)
    ours = twin(lambda: StageA(StageAConfig(**config)), reference.state_dict())
    side = 1024 if full else 128
    pixels = torch.rand(1, 3, side, side)
    latent, theirs = timed(lambda: reference.encode(pixels).latents)
    found, seconds = timed(lambda: ours.encode(pixels))
    report("Stage A encode", found, latent, (seconds, theirs))
    expected, theirs = timed(lambda: reference.decode(latent).sample)
    found, seconds = timed(lambda: ours.decode(latent))
    report("Stage A decode", found, expected, (seconds, theirs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="the published sizes, at 1024²")
    full = parser.parse_args().full
    torch.manual_seed(0)
    with torch.no_grad():
        for compare in (stage_c, stage_b, stage_a):
            compare(full)
            gc.collect()


if __name__ == "__main__":
    main()
