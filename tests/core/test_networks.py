"""Each network equals its reference: same random weights, float32, CPU."""

import pytest
import torch
from diffusers.pipelines.deprecated.wuerstchen.modeling_paella_vq_model import PaellaVQModel
from diffusers.pipelines.deprecated.wuerstchen.modeling_wuerstchen_diffnext import (
    WuerstchenDiffNeXt,
)
from diffusers.pipelines.deprecated.wuerstchen.modeling_wuerstchen_prior import WuerstchenPrior
from safetensors.torch import load_file
from torch import Tensor

from comfyui_wuerstchen.wuerstchen_core.image_encoder import ImageEncoder, ImageEncoderConfig
from comfyui_wuerstchen.wuerstchen_core.stage_a import StageA, StageAConfig
from comfyui_wuerstchen.wuerstchen_core.stage_b import StageB, StageBConfig
from comfyui_wuerstchen.wuerstchen_core.stage_c import StageC, StageCConfig

from ..paths import DATA
from ..reference.named_weights import named_weights

TOLERANCE = 1e-5

STAGE_C = {"c": 128, "depth": 3, "nhead": 2, "c_cond": 48}
# Published shape in small: attention on lower levels only, no embedding at the top, 4 levels.
STAGE_B = {
    "c_hidden": (32, 64, 64, 128),
    "nhead": (-1, 1, 1, 2),
    "blocks": (1, 2, 2, 1),
    "c_cond": 40,
    "clip_embd": 48,
}
# Every other switch of the config: odd depth, 5×5 kernels, attention on top, embedding everywhere.
STAGE_B_OTHER = {
    "c_hidden": (32, 64),
    "nhead": (2, 4),
    "blocks": (2, 1),
    "level_config": ("CTA", "CT"),
    "inject_effnet": (True, False),
    "kernel_size": 5,
    "c_r": 33,
    "patch_size": 4,
    "effnet_embd": 8,
    "c_cond": 40,
    "clip_embd": 48,
    "dropout": (0.1, 0.2),
}


def relative_error(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max()).item()


def with_weights(network: torch.nn.Module) -> torch.nn.Module:
    shapes = {name: value.shape for name, value in network.state_dict().items()}
    network.load_state_dict(named_weights(shapes))
    return network.eval()


def as_lists(config: dict) -> dict:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in config.items()}


@pytest.mark.parametrize("grid", [(6, 6), (3, 12), (9, 6)])
@torch.no_grad()
def test_stage_c_equals_diffusers(grid: tuple[int, int]) -> None:
    reference = with_weights(WuerstchenPrior(**STAGE_C))
    ours = StageC(StageCConfig(**STAGE_C)).eval()
    ours.load_state_dict(reference.state_dict())
    heads: list[Tensor] = []
    reference.out.register_forward_hook(lambda module, args, output: heads.append(output))
    x, t = torch.randn(2, 16, *grid), torch.tensor([0.7, 0.3])
    text = torch.randn(2, 77, 48)
    expected = reference(x, t, text)
    context = ours.prepare(text)
    assert relative_error(torch.cat(ours.heads(x, t, context), dim=1), heads[0]) <= TOLERANCE
    # The division amplifies rounding where |1 - b| is small.
    close = torch.isclose(ours(x, t, context), expected, rtol=1e-3, atol=1e-3)
    assert close.float().mean() > 0.999


@pytest.mark.parametrize("config", [STAGE_B, STAGE_B_OTHER], ids=["published", "other"])
@pytest.mark.parametrize("size", [(64, 64), (32, 96)])
@torch.no_grad()
def test_stage_b_equals_diffusers(config: dict, size: tuple[int, int]) -> None:
    reference = with_weights(WuerstchenDiffNeXt(**as_lists(config)))
    ours = StageB(StageBConfig(**config)).eval()
    ours.load_state_dict(reference.state_dict())
    x, t = torch.randn(2, 4, *size), torch.tensor([0.7, 0.3])
    embedding = torch.randn(2, config.get("effnet_embd", 16), size[0] * 3 // 32, size[1] * 3 // 32)
    text = torch.randn(2, 77, 48)
    expected_a, expected_b = reference(x, t, embedding, text, return_noise=False)
    a, b = ours.heads(x, t, ours.prepare(embedding, size, text))
    assert relative_error(a, expected_a) <= TOLERANCE
    assert relative_error(b, expected_b) <= TOLERANCE


@torch.no_grad()
def test_stage_b_without_text_attends_to_the_image_alone() -> None:
    network = with_weights(StageB(StageBConfig(**STAGE_B)))
    x, t, embedding = torch.randn(1, 4, 64, 64), torch.tensor([0.5]), torch.randn(1, 16, 6, 6)
    without = network(x, t, network.prepare(embedding, (64, 64)))
    with_text = network(x, t, network.prepare(embedding, (64, 64), torch.randn(1, 77, 48)))
    assert without.isfinite().all() and not torch.allclose(without, with_text)


@torch.no_grad()
def test_stage_a_equals_diffusers() -> None:
    config = {"bottleneck_blocks": 2, "embed_dim": 64, "num_vq_embeddings": 32}
    reference = with_weights(PaellaVQModel(**config))
    ours = StageA(StageAConfig(**config)).eval()
    ours.load_state_dict(reference.state_dict())
    pixels = torch.rand(2, 3, 64, 96)
    latent = reference.encode(pixels).latents
    assert relative_error(ours.encode(pixels), latent) <= TOLERANCE
    assert relative_error(ours.decode(latent), reference.decode(latent).sample) <= TOLERANCE
    indices = ours.vquantizer.nearest(latent)
    expected = reference.vquantizer(latent)[2][2].view(indices.shape)
    assert torch.equal(indices, expected)


@torch.no_grad()
def test_image_encoder_equals_torchvision() -> None:
    """Against recorded outputs: tests/reference/record_image_encoder.py says why and how."""
    recorded = load_file(DATA / "efficientnet_v2_s.safetensors")
    encoder = with_weights(ImageEncoder(ImageEncoderConfig()))
    features = encoder.backbone(recorded["pixels"])
    assert relative_error(features, recorded["features"]) <= TOLERANCE


@torch.no_grad()
def test_image_encoder_normalises_and_maps() -> None:
    encoder = with_weights(ImageEncoder(ImageEncoderConfig()))
    pixels = torch.rand(1, 3, 70, 96)
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    expected = encoder.mapper(encoder.backbone((pixels - mean) / std))
    assert expected.shape == (1, 16, 3, 3)  # sides round up to whole cells of 32 px
    assert relative_error(encoder(pixels), expected) <= TOLERANCE
