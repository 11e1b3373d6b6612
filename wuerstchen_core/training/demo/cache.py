"""What the frozen Stage A and image encoder make of many scenes, so that Stage B and Stage C train
without drawing or encoding anything."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from ...files import write_atomically
from .configs import PICTURE
from .encoder import INPUT
from .scenes import SceneBatch, draw, sample_scenes

CHUNK = 64


@torch.no_grad()
def build_cache(
    path: Path, count: int, encode: Callable[[Tensor], Tensor], made_by: Path
) -> tuple[Tensor, Tensor]:
    """(encoded pictures float32, classes count×5) of the first `count` training scenes.

    encode: pictures B×3×256×256 -> what is kept, stored as float16. Row i is the same scene in
    every cache. The file at `path` is read when it is there and was made by the same checkpoint
    `made_by`.
    """
    about = {"made_by": hashlib.sha256(made_by.read_bytes()).hexdigest(), "count": str(count)}
    if _about(path) != about:
        chunks = [_chunk(start) for start in range(0, count, CHUNK)]
        encoded, classes = [], []
        for scenes in tqdm(chunks, desc=path.stem, dynamic_ncols=True):
            with torch.autocast("cpu", torch.bfloat16):
                encoded.append(encode(draw(scenes, PICTURE)).half())
            classes.append(scenes.classes)
        with write_atomically(path) as partial:
            tensors = {"encoded": torch.cat(encoded), "classes": torch.cat(classes)}
            save_file(tensors, partial, metadata=about)
    cache = load_file(path)
    return cache["encoded"].float(), cache["classes"]


def shrink(pictures: Tensor) -> Tensor:
    """What the encoder sees of a picture: three quarters of its size."""
    return F.interpolate(pictures, size=(INPUT, INPUT), mode="bilinear", antialias=True)


def _about(path: Path) -> dict[str, str] | None:
    if not path.exists():
        return None
    with safe_open(path, "pt") as cache:
        return cache.metadata()


def _chunk(start: int) -> SceneBatch:
    return sample_scenes(CHUNK, torch.Generator().manual_seed(1_000_000 + start))
