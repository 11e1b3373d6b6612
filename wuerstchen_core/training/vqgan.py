"""The Stage A objective: reconstruction through the codebook, with quantisation dropout.

Source: paper section 3 and appendix E. The adversarial term starts after 10 000 steps there and
the perceptual one needs VGG weights; neither is part of this objective.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from ..stage_a import StageA


def reconstruction_losses(
    stage_a: StageA,
    pixels: Tensor,
    generator: torch.Generator,
    unquantised: float = 0.1,
    commitment: float = 0.25,
) -> dict[str, Tensor]:
    """pixels: B×3×H×W in [0, 1]. A share of the samples skips the codebook, so that the decoder
    also knows the unquantised latents, which are what v2's Stage B makes."""
    latent = stage_a.encode(pixels)
    indices = stage_a.vquantizer.nearest(latent.detach())
    codes = stage_a.vquantizer.embedding(indices).permute(0, 3, 1, 2)
    skip = torch.rand(len(pixels), 1, 1, 1, generator=generator).to(latent) < unquantised
    quantised = latent + (codes - latent).detach()  # straight-through gradient
    decoded = stage_a.decode(torch.where(skip, latent, quantised))
    return {
        "mse": F.mse_loss(decoded, pixels),
        "codebook": F.mse_loss(codes, latent.detach()) * 0.1,
        "commitment": F.mse_loss(latent, codes.detach()) * 0.1 * commitment,
    }
