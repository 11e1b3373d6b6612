"""Training Stage A on crops of drawn scenes."""

from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from ...stage_a import StageA
from ..plots import contact_sheet
from ..vqgan import reconstruction_losses
from .configs import PICTURE, STAGE_A
from .scenes import draw, sample_scenes

BATCH, CROP = 12, 128


class StageATask:
    """Reconstruction of 128² crops; judged by PSNR on whole held-out pictures."""

    def __init__(self) -> None:
        self.network = StageA(STAGE_A)
        # v2's Stage B works on latent / scale_factor, which should have unit variance.
        to_latent: Any = self.network.down_blocks[-1]
        nn.init.constant_(to_latent[1].weight, STAGE_A.scale_factor)
        nn.init.normal_(self.network.vquantizer.embedding.weight, std=STAGE_A.scale_factor)
        for name, gammas in self.network.named_parameters():
            if name.endswith("gammas"):  # open the gates: residual blocks of scale 0.3, not 0
                gammas.data[[2, 5]] = 0.3
        self.held_out = draw(
            sample_scenes(24, torch.Generator().manual_seed(1), held_out=True), PICTURE
        )

    def loss(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        pictures = draw(sample_scenes(BATCH, generator), PICTURE)
        top, left = torch.randint(PICTURE - CROP + 1, (2,), generator=generator).tolist()
        crops = pictures[:, :, top : top + CROP, left : left + CROP]
        return reconstruction_losses(self.network, crops, generator, unquantised=0.5)

    def probe(self, network: nn.Module) -> dict[str, float]:
        assert isinstance(network, StageA)
        decoded = network.decode(network.encode(self.held_out)).clamp(0, 1)
        return {"psnr_db": psnr(decoded, self.held_out).mean().item()}

    def sheet(self, network: nn.Module) -> Image.Image:
        assert isinstance(network, StageA)
        some = self.held_out[:8]
        decoded = network.decode(network.encode(some)).clamp(0, 1)
        return contact_sheet(torch.cat([some, decoded]), columns=8)


def psnr(pictures: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, one value a picture; B×3×H×W in [0, 1]."""
    return -10 * (pictures - truth).square().mean(dim=(1, 2, 3)).clamp_min(1e-10).log10()
