"""A mask: what it keeps stays, what it opens is sampled to fit."""

import pytest
import torch
from torch import Tensor

from comfyui_wuerstchen.wuerstchen_core.errors import WireError
from comfyui_wuerstchen.wuerstchen_core.generate import (
    SamplerSettings,
    sample_stage_b,
    sample_stage_c,
)
from comfyui_wuerstchen.wuerstchen_core.noise import SampleNoise
from comfyui_wuerstchen.wuerstchen_core.sampling import SAMPLERS, Callback, StepInfo
from comfyui_wuerstchen.wuerstchen_core.schedule import add_noise, alpha_bar
from comfyui_wuerstchen.wuerstchen_core.stage_b import StageB
from comfyui_wuerstchen.wuerstchen_core.stage_c import StageC, from_embedding

from ..checkpoints.tiny import DECODER_WIDTH, PRIOR_WIDTH, STAGE_B, STAGE_C
from ..reference.named_weights import tamed

LEFT_OPEN = torch.zeros(1, 1, 256, 256)  # 1 = to be sampled
LEFT_OPEN[..., :128] = 1


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


TEXT = random(1, 7, PRIOR_WIDTH)
LATENT_C = 42 * random(1, 16, 6, 6, seed=1) - 1
LATENT_B = 0.4 * random(1, 4, 64, 64, seed=2)


@pytest.fixture(scope="module")
def stage_c() -> StageC:
    return tamed(StageC(STAGE_C))  # type: ignore[return-value]


@pytest.fixture(scope="module")
def stage_b() -> StageB:
    return tamed(StageB(STAGE_B))  # type: ignore[return-value]


def run_c(
    stage_c: StageC,
    settings: SamplerSettings,
    mask: Tensor | None,
    callback: Callback | None = None,
    text: Tensor = TEXT,
) -> Tensor:
    noise = SampleNoise([3])
    return sample_stage_c(stage_c, text, None, LATENT_C, noise, settings, callback, mask)


def run_b(stage_b: StageB, settings: SamplerSettings, mask: Tensor | None) -> Tensor:
    text, embedding = random(1, 5, DECODER_WIDTH), random(1, 16, 6, 6)
    noise = SampleNoise([3])
    return sample_stage_b(stage_b, embedding, text, None, LATENT_B, noise, settings, None, mask)


@pytest.mark.parametrize("sampler_name", SAMPLERS)
def test_what_is_kept_is_kept(stage_c: StageC, stage_b: StageB, sampler_name: str) -> None:
    settings = SamplerSettings(6, 1.0, sampler_name)
    found = run_c(stage_c, settings, LEFT_OPEN)
    torch.testing.assert_close(found[..., 3:], LATENT_C[..., 3:], rtol=1e-6, atol=1e-5)
    assert (found[..., :3] - LATENT_C[..., :3]).abs().mean() > 1
    found = run_b(stage_b, settings, LEFT_OPEN)
    torch.testing.assert_close(found[..., 32:], LATENT_B[..., 32:], rtol=1e-6, atol=1e-6)
    assert (found[..., :32] - LATENT_B[..., :32]).abs().mean() > 0.05


@pytest.mark.parametrize("denoise", [1.0, 0.6])
def test_an_open_mask_is_none(stage_c: StageC, denoise: float) -> None:
    settings = SamplerSettings(6, 1.0, "ddim", denoise=denoise)
    open_ = run_c(stage_c, settings, torch.ones(1, 1, 8, 8))
    torch.testing.assert_close(open_, run_c(stage_c, settings, None))


def test_the_open_part_sees_the_rest(stage_c: StageC) -> None:
    """Otherwise it would be what it is without a picture to fit to."""
    settings = SamplerSettings(6, 1.0, "ddim")
    alone = run_c(stage_c, settings, None)[..., :3]
    assert not torch.allclose(run_c(stage_c, settings, LEFT_OPEN)[..., :3], alone, rtol=1e-2)


def test_each_step_is_the_reference_formula(stage_c: StageC) -> None:
    """`x * mask + diffuse(x_init, t) * (1 - mask)` before each call, as in diffuzz.py."""
    settings = SamplerSettings(4, 1.0, "ddpm")
    mask = torch.tensor([1.0, 1, 0.5, 0, 0, 0]).expand(1, 1, 6, 6)
    found = run_c(stage_c, settings, mask)
    noise, x0 = SampleNoise([3]), from_embedding(LATENT_C)
    x, walk = noise.draw((16, 6, 6)), settings.walk
    with torch.no_grad():
        context = stage_c.prepare(TEXT)
        for t, t_next in zip(walk, walk[1:], strict=False):
            known = add_noise(x0, noise.draw((16, 6, 6)), torch.tensor([t]))
            x = x * mask + known * (1 - mask)
            eps, draw = stage_c(x, t, context), noise.draw((16, 6, 6))
            alpha = alpha_bar(t) / alpha_bar(t_next)
            x = (x - (1 - alpha) / (1 - alpha_bar(t)) ** 0.5 * eps) / alpha**0.5
            if t_next > 0:
                left = (1 - alpha_bar(t_next)) / (1 - alpha_bar(t))
                x = x + ((1 - alpha) * left) ** 0.5 * draw
    expected = 42 * (x * mask + x0 * (1 - mask)) - 1
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)


def test_previews_show_what_is_kept(stage_c: StageC) -> None:
    seen: list[StepInfo] = []
    run_c(stage_c, SamplerSettings(3, 1.0), LEFT_OPEN, seen.append)
    kept = from_embedding(LATENT_C)[..., 3:]
    assert len(seen) == 3
    assert all(torch.allclose(info.x0[..., 3:], kept, atol=1e-5) for info in seen)


def test_a_mask_needs_a_picture(stage_b: StageB) -> None:
    settings = SamplerSettings(2, 1.0)
    with pytest.raises(WireError, match="there is a mask and no picture to keep"):
        sample_stage_b(
            stage_b, LATENT_C, None, None, None, SampleNoise([1]), settings, None, LEFT_OPEN
        )
