"""The demo checkpoint's preview maps, fitted on drawn scenes."""

import torch

from ...generate import encode_embedding, encode_pixels
from ...image_encoder import ImageEncoder
from ...preview import Fit, key_of
from ...stage_a import StageA
from .configs import GRID, PICTURE, STAGE_B, STAGE_C
from .scenes import draw, sample_scenes

CHUNK, CHUNKS = 32, 16


def fit_previews(stage_a: StageA, encoder: ImageEncoder) -> dict[str, Fit]:
    """Fits of Stage C's and Stage B's latents by key; all scenes count the same."""
    generator = torch.Generator().manual_seed(3_000_000)
    stage_c, stage_b = Fit.empty(STAGE_C.c_in), Fit.empty(STAGE_B.c_in)
    for _ in range(CHUNKS):
        pictures = draw(sample_scenes(CHUNK, generator), PICTURE)
        stage_c = stage_c.after(encode_embedding(encoder, pictures, GRID), pictures, keep=1.0)
        stage_b = stage_b.after(encode_pixels(stage_a, pictures), pictures, keep=1.0)
    return {key_of(STAGE_C): stage_c, key_of(STAGE_B): stage_b}
