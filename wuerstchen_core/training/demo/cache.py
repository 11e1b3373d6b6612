"""Scenes with what the frozen Stage A and image encoder make of them, so that Stage B and Stage C
train without drawing or encoding anything."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from ...files import write_atomically
from ...image_encoder import ImageEncoder
from ...stage_a import StageA
from .configs import PICTURE
from .encoder import INPUT
from .scenes import draw, sample_scenes

CHUNK = 64


@dataclass(frozen=True)
class Cache:
    """N scenes. embeddings: N×16×6×6 float32 in embedding space; latents: the first M scenes'
    M×4×64×64 float16 in VQ space; classes: N×5 (background, shape, colour, size, place)."""

    embeddings: Tensor
    latents: Tensor
    classes: Tensor


@torch.no_grad()
def build_cache(
    path: Path, stage_a: StageA, encoder: ImageEncoder, scenes: int, with_latents: int
) -> Cache:
    """Reads the cache at `path`, or makes it: `scenes` scenes, the first ones with Stage A latents."""
    if path.exists():
        return Cache(**load_file(path))
    stage_a.eval()
    encoder.eval()
    embeddings, latents, classes = [], [], []
    for start in tqdm(range(0, scenes, CHUNK), desc="cache", dynamic_ncols=True):
        generator = torch.Generator().manual_seed(1_000_000 + start)
        batch = sample_scenes(CHUNK, generator)
        pictures = draw(batch, PICTURE)
        with torch.autocast("cpu", torch.bfloat16):
            embeddings.append(encoder(shrink(pictures)).float())
            if start < with_latents:
                latents.append(stage_a.encode(pictures).half())
        classes.append(batch.classes)
    cache = Cache(torch.cat(embeddings), torch.cat(latents), torch.cat(classes))
    with write_atomically(path) as partial:
        save_file(vars(cache), partial)
    return cache


def shrink(pictures: Tensor) -> Tensor:
    """What the encoder sees of a picture: three quarters of its size."""
    return F.interpolate(pictures, size=(INPUT, INPUT), mode="bilinear", antialias=True)
