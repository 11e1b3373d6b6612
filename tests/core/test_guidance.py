"""Guidance beyond its scale, beside diffusers' own functions."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer, normalized_guidance
from diffusers.guiders.guider_utils import rescale_noise_cfg
from torch import Tensor

from comfyui_wuerstchen.wuerstchen_core.conditions import Condition
from comfyui_wuerstchen.wuerstchen_core.generate import SamplerSettings, sample_stage_b
from comfyui_wuerstchen.wuerstchen_core.guidance import Guidance, Predictor
from comfyui_wuerstchen.wuerstchen_core.noise import SampleNoise
from comfyui_wuerstchen.wuerstchen_core.schedule import alpha_bar
from comfyui_wuerstchen.wuerstchen_core.stage_b import StageB

from ..checkpoints.tiny import DECODER_WIDTH, STAGE_B
from ..reference.named_weights import tamed

SHAPE = (2, 4, 8, 8)


def model(x: Tensor, t: Any, context: Tensor) -> Tensor:
    """Another eps for each condition: its number turns and lengthens x."""
    turn = context.view(-1, 1, 1, 1)
    return x * turn.cos() + 2 * x.roll(1, dims=3) * turn.sin() * t


def predictor(numbers: list[float], scales: list[float], guidance: Guidance) -> Predictor:
    branches = [[Condition((torch.full((len(torch.zeros(SHAPE)),), n),))] for n in numbers]
    return Predictor(model, lambda number: number, branches, scales, guidance)


def eps_of(x: Tensor, t: float, number: float) -> Tensor:
    return model(x, t, torch.full((len(x),), number))


def x0_of(x: Tensor, t: float, eps: Tensor) -> Tensor:
    return (x - (1 - alpha_bar(t)) ** 0.5 * eps) / alpha_bar(t) ** 0.5


@pytest.fixture
def x() -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))


def test_plain_guidance_is_a_lerp(x: Tensor) -> None:
    found = predictor([0.1, 0.5], [4.0], Guidance())(x, 0.7)
    expected = torch.lerp(eps_of(x, 0.7, 0.1), eps_of(x, 0.7, 0.5), 4.0)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_rescale_is_that_of_diffusers(x: Tensor, share: float) -> None:
    found = predictor([0.1, 0.5], [4.0], Guidance(rescale=share))(x, 0.7)
    conditional = eps_of(x, 0.7, 0.5)
    plain = torch.lerp(eps_of(x, 0.7, 0.1), conditional, 4.0)
    torch.testing.assert_close(found, rescale_noise_cfg(plain, conditional, share))
    assert not torch.allclose(found, plain, rtol=1e-2)


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("threshold", [0.0, 3.0])
@pytest.mark.parametrize("momentum", [0.0, -0.5])
def test_apg_is_that_of_diffusers(x: Tensor, eta: float, threshold: float, momentum: float) -> None:
    guidance = Guidance(projected=True, eta=eta, norm_threshold=threshold, momentum=momentum)
    ours, theirs = predictor([0.1, 0.5], [4.0], guidance), MomentumBuffer(momentum)
    for t in (0.9, 0.6, 0.3):
        found = x0_of(x, t, ours(x, t))
        expected = normalized_guidance(
            x0_of(x, t, eps_of(x, t, 0.5)),
            x0_of(x, t, eps_of(x, t, 0.1)),
            guidance_scale=3.0,  # of the push beyond the conditional branch, in this form
            momentum_buffer=theirs,
            eta=eta,
            norm_threshold=threshold,
            use_original_formulation=True,
        )
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_part_of_the_steps(x: Tensor) -> None:
    settings = SamplerSettings(8, 4.0, guidance=Guidance(start=0.25, end=0.75))
    branches = [[Condition((torch.full((2,), n),))] for n in (0.1, 0.5)]
    rows: list[int] = []

    def counted(x: Tensor, t: Any, context: Tensor) -> Tensor:
        rows.append(len(x))
        return model(x, t, context)

    predict = Predictor(counted, lambda n: n, branches, [4.0], guided=settings.guided)
    for t in settings.walk[:-1]:
        predict(x, t)
    assert rows == [2, 2, 4, 4, 4, 4, 2, 2]


def test_two_axes_add_up(x: Tensor) -> None:
    found = predictor([0.1, 0.5, 0.9], [3.0, 5.0], Guidance())(x, 0.5)
    base, middle, full = (eps_of(x, 0.5, number) for number in (0.1, 0.5, 0.9))
    expected = base + 3 * (middle - base) + 5 * (full - middle)
    torch.testing.assert_close(found, expected)


@pytest.fixture(scope="module")
def draw() -> Callable[..., Tensor]:
    stage_b: StageB = tamed(StageB(STAGE_B))  # type: ignore[assignment]
    text, nothing = torch.randn(2, 1, 5, DECODER_WIDTH)
    embedding = torch.randn(1, 16, 3, 3)

    def run(cfg: float, apart: float | None, with_text: bool = True) -> Tensor:
        texts = (text, nothing) if with_text else (None, None)
        settings = SamplerSettings(4, cfg, "ddim", guidance=Guidance(embedding_scale=apart))
        return sample_stage_b(stage_b, embedding, *texts, None, SampleNoise([1]), settings)

    return run


def test_both_axes_at_one_scale_are_the_reference(draw: Callable[..., Tensor]) -> None:
    torch.testing.assert_close(draw(3.0, 3.0), draw(3.0, None), rtol=1e-3, atol=1e-3)
    assert not torch.allclose(draw(3.0, 1.5), draw(3.0, None), rtol=1e-2)


def test_the_embedding_is_guided_while_the_text_is_not(draw: Callable[..., Tensor]) -> None:
    alone = draw(0.0, 3.0)
    assert torch.equal(alone, draw(1.0, 3.0))
    torch.testing.assert_close(alone, draw(1.0001, 3.0), rtol=1e-2, atol=1e-2)
    for other in (draw(3.0, None), draw(0.0, 3.0, with_text=False)):
        assert not torch.allclose(alone, other, rtol=1e-4, atol=1e-6)


def test_the_embedding_is_guided_without_a_text(draw: Callable[..., Tensor]) -> None:
    alone = draw(0.0, 3.0, with_text=False)
    torch.testing.assert_close(alone, draw(3.0, None, with_text=False))
    assert not torch.allclose(alone, draw(0.0, None, with_text=False), rtol=1e-2)
