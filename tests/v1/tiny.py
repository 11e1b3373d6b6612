"""A tiny Würstchen v1 in the layout that the real one is published in."""

from pathlib import Path

import torch
from torch import nn

from comfyui_wuerstchen.wuerstchen_core.checkpoints import save_text_encoder
from comfyui_wuerstchen.wuerstchen_core.image_encoder import (
    BackboneStage,
    ImageEncoder,
    ImageEncoderConfig,
)
from comfyui_wuerstchen.wuerstchen_core.stage_a import StageA, StageAConfig
from comfyui_wuerstchen.wuerstchen_core.stage_c import StageC
from comfyui_wuerstchen.wuerstchen_core.v1.paella import Paella, PaellaConfig
from comfyui_wuerstchen.wuerstchen_core.v1.stage_c import StageCV1Config

from ..checkpoints.tiny import in_original_layout, text_encoder, with_weights

WIDTH = 48  # of the text states

STAGE_C = StageCV1Config(c=64, c_cond=WIDTH, depth=1, nhead=1)
STAGE_B = PaellaConfig(
    c_in=12,
    c_out=8,
    num_labels=16,
    c_cond=24,
    c_hidden=(16, 32, 32),
    blocks=(1, 2, 1),
    byt5_embd=WIDTH,
)
STAGE_A = StageAConfig(bottleneck_blocks=1, embed_dim=16, num_vq_embeddings=16)
IMAGE_ENCODER = ImageEncoderConfig(
    c_cond=32,
    effnet="efficientnet_v2",
    stem=8,
    stages=(
        BackboneStage(True, 1, 1, 8, 1),
        BackboneStage(True, 4, 2, 12, 1),
        BackboneStage(True, 4, 2, 16, 1),
        BackboneStage(False, 4, 2, 16, 1),
        BackboneStage(False, 6, 1, 16, 1),
        BackboneStage(False, 6, 2, 24, 1),
        BackboneStage(False, 6, 1, 32, 1),
    ),
)


def networks() -> dict[str, nn.Module]:
    stage_c = with_weights(StageC(STAGE_C))
    stage_c.get_submodule("out.1").weight.data *= 0.1  # see v1_cases.tamed_head
    return {
        "stage_c": stage_c,
        "stage_b": with_weights(Paella(STAGE_B)),
        "stage_a": with_weights(StageA(STAGE_A)),
        "image_encoder": with_weights(ImageEncoder(IMAGE_ENCODER)),
    }


def write_published(folder: Path, scratch: Path) -> None:
    """The three .pt files with what else the original's training saves, and CLIP-H."""
    states = {name: in_original_layout(part.state_dict()) for name, part in networks().items()}
    worse = {name: torch.zeros_like(value) for name, value in states["stage_c"].items()}
    files = {
        "model_stage_c.pt": {"state_dict": worse, "ema_state_dict": states["stage_c"]},
        "model_stage_b.pt": {
            "state_dict": states["stage_b"],
            "effnet_state_dict": states["image_encoder"],
            "optimizer_state_dict": {"state": {}, "param_groups": [{"lr": 1e-4}]},
        },
        "vqgan_f4_v1_500k.pt": {"state_dict": states["stage_a"]},
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        torch.save({**content, "iter": 7, "wandb_run_id": "some"}, folder / name)
    save_text_encoder(text_encoder(WIDTH, scratch), folder / "clip-h", torch.float32)
