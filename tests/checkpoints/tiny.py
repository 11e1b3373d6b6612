"""Tiny networks with random weights, and the layouts that their weights are published in."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from comfyui_wuerstchen.wuerstchen_core.checkpoints import (
    save_network,
    save_text_encoder,
    write_pipeline_indexes,
)
from comfyui_wuerstchen.wuerstchen_core.image_encoder import (
    BackboneStage,
    ImageEncoder,
    ImageEncoderConfig,
)
from comfyui_wuerstchen.wuerstchen_core.stage_a import StageA, StageAConfig
from comfyui_wuerstchen.wuerstchen_core.stage_b import StageB, StageBConfig
from comfyui_wuerstchen.wuerstchen_core.stage_c import StageC, StageCConfig
from comfyui_wuerstchen.wuerstchen_core.text_encoder import TextEncoder
from comfyui_wuerstchen.wuerstchen_core.training.demo.tokenizer import build_tokenizer

from ..reference.named_weights import named_weights

PRIOR_WIDTH, DECODER_WIDTH = 64, 48

STAGE_C = StageCConfig(c=128, c_cond=PRIOR_WIDTH, depth=2, nhead=2)
# The published shape in small: no embedding and no attention on top, four levels.
STAGE_B = StageBConfig(
    c_cond=40,
    c_hidden=(32, 64, 64, 128),
    nhead=(-1, 1, 1, 2),
    blocks=(1, 2, 2, 1),
    clip_embd=DECODER_WIDTH,
)
STAGE_A = StageAConfig(bottleneck_blocks=2, embed_dim=32, num_vq_embeddings=16)
IMAGE_ENCODER = ImageEncoderConfig(
    c_cond=48,
    effnet="efficientnet_v2",
    stem=8,
    stages=(
        BackboneStage(True, 1, 1, 8, 1),
        BackboneStage(True, 4, 2, 12, 2),
        BackboneStage(True, 4, 2, 16, 1),
        BackboneStage(False, 4, 2, 24, 2),
        BackboneStage(False, 6, 1, 32, 1),
        BackboneStage(False, 6, 2, 40, 1),
    ),
)


def with_weights(network: nn.Module) -> nn.Module:
    shapes = {name: value.shape for name, value in network.state_dict().items()}
    network.load_state_dict(named_weights(shapes))
    return network.eval()


def networks() -> dict[str, nn.Module]:
    """The part's name -> a tiny network of it."""
    return {
        "stage_c": with_weights(StageC(STAGE_C)),
        "stage_b": with_weights(StageB(STAGE_B)),
        "stage_a": with_weights(StageA(STAGE_A)),
        "image_encoder": with_weights(ImageEncoder(IMAGE_ENCODER)),
    }


def text_encoder(width: int, folder: Path) -> TextEncoder:
    """A tiny CLIP text tower; its tokenizer is written into `folder` first."""
    build_tokenizer(folder)
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        hidden_act="gelu",
        projection_dim=width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return TextEncoder(tokenizer, CLIPTextModel(config))


def write_published(folder: Path, scratch: Path) -> None:
    """The three published repositories side by side, float32."""
    parts = networks()
    places = {
        "stage_c": folder / "wuerstchen-prior" / "prior",
        "stage_b": folder / "wuerstchen" / "decoder",
        "stage_a": folder / "wuerstchen" / "vqgan",
        "image_encoder": folder / "EfficientNetEncoder",
    }
    for part, place in places.items():
        save_network(parts[part], place, torch.float32)
    towers = {"wuerstchen-prior": PRIOR_WIDTH, "wuerstchen": DECODER_WIDTH}
    for repository, width in towers.items():
        save_text_encoder(text_encoder(width, scratch), folder / repository, torch.float32)
    write_pipeline_indexes(folder)


def in_original_layout(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """diffusers names -> dome272/Wuerstchen's: packed q, k and v, and the codebook."""
    original: dict[str, Tensor] = {}
    for name, value in state.items():
        if ".to_q." in name:
            parts = [state[name.replace(".to_q.", f".to_{letter}.")] for letter in "qkv"]
            original[name.replace("to_q.", "attn.in_proj_")] = torch.cat(parts)
        elif ".to_k." not in name and ".to_v." not in name:
            name = name.replace("attention.to_out.0.", "attention.attn.out_proj.")
            original[name.replace("vquantizer.embedding.", "vquantizer.codebook.")] = value
    return original


def write_file(path: Path, state: dict[str, Tensor]) -> Path:
    """A lone .safetensors file, or torch's format for any other name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


@torch.no_grad()
def output(network: nn.Module) -> Tensor:
    """What a network makes of fixed inputs."""
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    t = torch.tensor([0.6])
    if isinstance(network, StageC):
        context = network.prepare(noise(1, 77, PRIOR_WIDTH))
        return torch.cat(network.heads(noise(1, 16, 6, 3), t, context))
    if isinstance(network, StageB):
        context = network.prepare(noise(1, 16, 6, 3), (64, 32), noise(1, 77, DECODER_WIDTH))
        return torch.cat(network.heads(noise(1, 4, 64, 32), t, context))
    if isinstance(network, StageA):
        return network.decode(network.encode(noise(1, 3, 32, 64)))
    return network(noise(1, 3, 64, 96))


def relative_error(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max()).item()
