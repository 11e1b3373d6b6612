"""Training the image encoder.

The paper trains it jointly with Stage B. On two cores it is quicker to train it first, against a
cheap stand-in for Stage B: a pointwise network that reads the resized embedding and paints each
pixel on its own. What it can paint, Stage B can paint too. Noise on the embedding keeps different
scenes apart by more than the prior's errors, and linear readers in every cell keep what the
captions name easy to find.
"""

from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from ...image_encoder import ImageEncoder
from ...resize import resize_bicubic
from ...stage_c import LATENT_MEAN, LATENT_STD, from_embedding
from ..plots import contact_sheet
from .configs import GRID, IMAGE_ENCODER
from .scenes import CLASSES, draw, sample_scenes
from .stage_a import psnr

BATCH = 32
POINTS = 768  # painted pixels of each picture and step
CANVAS = 64  # px: the resolution at which the stand-in paints
STRONGEST_NOISE = 0.5  # in units of the embedding's standard deviation
# Background, shape, colour, size. Blobs of the right colour paint well, so the shape is learned
# last, and not within thousands of steps unless reading it counts for more.
READING_WEIGHTS = (0.1, 0.6, 0.1, 0.1)

INPUT = GRID[0] * 32  # px: what the encoder sees of a 256 px picture


class EncoderAndPainter(nn.Module):
    """The encoder with what is thrown away after its training: the painter and the readers."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = ImageEncoder(IMAGE_ENCODER)
        norm: Any = self.encoder.mapper[1]
        nn.init.constant_(norm.weight, LATENT_MEAN)  # so that the prior's z has unit variance
        nn.init.constant_(norm.bias, -LATENT_STD)
        width, latent = 128, IMAGE_ENCODER.c_latent
        self.painter = nn.Sequential(
            nn.Linear(latent, width),
            nn.GELU(),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, 3),
        )
        # Place has no reader: where the object is, each cell tells relative to itself.
        self.readers = nn.ModuleList(nn.Linear(latent, n) for n in CLASSES[:4])
        self.offset = nn.Linear(latent, 2)

    def latent(self, pictures: Tensor) -> Tensor:
        """B×3×192×192 -> z: B×16×6×6 in the prior's space."""
        return from_embedding(self.encoder(pictures))

    def paint(self, z: Tensor) -> Tensor:
        """z: B×16×6×6 -> B×3×64×64."""
        resized = resize_bicubic(z, (CANVAS, CANVAS))
        return self.painter(resized.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def read_cells(network: EncoderAndPainter, z: Tensor) -> tuple[list[Tensor], Tensor]:
    """Logits B×h×w×n of background, shape, colour and size, and the object's place (x, y), B×h×w×2
    in units of the picture side."""
    cells = z.permute(0, 2, 3, 1)
    middles = (torch.arange(GRID[0]) + 0.5) / GRID[0]
    rows, columns = torch.meshgrid(middles, middles, indexing="ij")
    place = network.offset(cells) / 2 + torch.stack([columns, rows], dim=-1)
    return [reader(cells) for reader in network.readers], place


class EncoderTask:
    """Painting, reading and pointing from noisy embeddings."""

    def __init__(self) -> None:
        self.network = EncoderAndPainter()
        self.scenes = sample_scenes(128, torch.Generator().manual_seed(1), held_out=True)
        self.held_out = draw(self.scenes, INPUT)
        self.truth = draw(self.scenes, CANVAS)

    def loss(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        scenes = sample_scenes(BATCH, generator)
        z = self.network.latent(draw(scenes, INPUT))
        strength = torch.rand(BATCH, 1, 1, 1, generator=generator) * STRONGEST_NOISE
        z = z + strength * torch.randn(z.shape, generator=generator)

        points = torch.randint(CANVAS**2, (POINTS,), generator=generator)
        resized = resize_bicubic(z, (CANVAS, CANVAS)).flatten(2)[:, :, points]
        painted = self.network.painter(resized.transpose(1, 2))
        truth = draw(scenes, CANVAS).flatten(2)[:, :, points].transpose(1, 2)

        logits, place = read_cells(self.network, z)
        wanted = scenes.classes
        reading = torch.stack(
            [
                weight
                * F.cross_entropy(
                    found.flatten(1, 2).transpose(1, 2).float(),
                    wanted[:, i : i + 1].expand(-1, GRID[0] * GRID[1]),
                )
                for i, (found, weight) in enumerate(zip(logits, READING_WEIGHTS, strict=True))
            ]
        ).sum()
        center = torch.stack([scenes.center_x, scenes.center_y], dim=-1)[:, None, None]
        return {
            "paint": 10 * F.mse_loss(painted.float(), truth),
            "read": reading,
            "point": 5 * F.mse_loss(place.float(), center.expand_as(place)),
        }

    def probe(self, network: nn.Module) -> dict[str, float]:
        assert isinstance(network, EncoderAndPainter)
        z = network.latent(self.held_out)
        logits, place = read_cells(network, z)
        center = torch.stack([self.scenes.center_x, self.scenes.center_y], dim=-1)
        wanted = self.scenes.classes
        result = {
            name: (found.mean(dim=(1, 2)).argmax(dim=1) == wanted[:, i]).float().mean().item()
            for i, (name, found) in enumerate(
                zip(("background", "shape", "color", "size"), logits, strict=True)
            )
        }
        result["place_error_px"] = ((place.mean(dim=(1, 2)) - center).abs().mean() * 256).item()
        result["psnr_db"] = psnr(network.paint(z).clamp(0, 1), self.truth).mean().item()
        return result

    def sheet(self, network: nn.Module) -> Image.Image:
        assert isinstance(network, EncoderAndPainter)
        painted = network.paint(network.latent(self.held_out[:8])).clamp(0, 1)
        return contact_sheet(torch.cat([self.truth[:8], painted]), columns=8)
