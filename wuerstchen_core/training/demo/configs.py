"""Sizes and training lengths of the demo checkpoint."""

from dataclasses import dataclass

from ...image_encoder import BackboneStage, ImageEncoderConfig
from ...stage_a import StageAConfig
from ...stage_b import StageBConfig
from ...stage_c import StageCConfig
from ..loop import TrainSettings

PICTURE = 256  # px; a grid of 6×6 Stage C cells and 64×64 Stage B cells
GRID = (6, 6)

STAGE_A = StageAConfig(embed_dim=64, bottleneck_blocks=2, num_vq_embeddings=512)

IMAGE_ENCODER = ImageEncoderConfig(
    c_cond=256,
    effnet="efficientnet_v2_demo",
    stem=16,
    stages=(
        BackboneStage(True, 1, 1, 16, 1),
        BackboneStage(True, 4, 2, 24, 2),
        BackboneStage(True, 4, 2, 32, 2),
        BackboneStage(False, 4, 2, 64, 2),
        BackboneStage(False, 4, 1, 80, 2),
        BackboneStage(False, 4, 2, 128, 3),
    ),
    stochastic_depth=0.0,
)

STAGE_B = StageBConfig(
    c_cond=64,
    c_hidden=(64, 128, 192),
    nhead=(-1, -1, 3),
    blocks=(1, 2, 2),
    level_config=("CT", "CT", "CTA"),
    inject_effnet=(True, True, True),
    clip_embd=128,
    dropout=0.0,
)

STAGE_C = StageCConfig(c=192, c_cond=192, depth=6, nhead=3, dropout=0.0)


@dataclass(frozen=True)
class TextSize:
    """The CLIP text tower: width, layers, heads; the MLP is four times as wide."""

    width: int
    layers: int
    heads: int


PRIOR_TEXT = TextSize(192, 3, 3)
DECODER_TEXT = TextSize(128, 2, 2)

# Encoded scenes that Stage C trains on, and the first ones of them for Stage B.
CACHED_SCENES, CACHED_LATENTS = 16_384, 8_192

# In the order of training: Stage B and C need the frozen results of those before.
SETTINGS = {
    "stage_a": TrainSettings(steps=1400, learning_rate=2e-3),
    "text": TrainSettings(steps=450, autocast=False, probe_every=225),
    "image_encoder": TrainSettings(steps=2600, learning_rate=2e-3),
    "stage_b": TrainSettings(steps=8500, learning_rate=1.5e-3, ema_decay=0.999),
    "stage_c": TrainSettings(steps=1500, ema_decay=0.999),
}
