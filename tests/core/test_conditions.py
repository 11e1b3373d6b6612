"""Several texts in one picture: where, when and how much each counts."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from comfyui_wuerstchen.wuerstchen_core.conditions import Text, Texts, on_grid
from comfyui_wuerstchen.wuerstchen_core.errors import WireError
from comfyui_wuerstchen.wuerstchen_core.generate import (
    SamplerSettings,
    sample_stage_b,
    sample_stage_c,
)
from comfyui_wuerstchen.wuerstchen_core.noise import SampleNoise
from comfyui_wuerstchen.wuerstchen_core.sampling import sample
from comfyui_wuerstchen.wuerstchen_core.stage_b import StageB
from comfyui_wuerstchen.wuerstchen_core.stage_c import StageC, to_embedding

from ..checkpoints.tiny import DECODER_WIDTH, PRIOR_WIDTH, STAGE_B, STAGE_C
from ..reference.named_weights import tamed

PLAIN = SamplerSettings(6, 1.0, "ddim")
STAR, RING = (
    torch.randn(1, 7, PRIOR_WIDTH, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)
)
LEFT = torch.zeros(1, 1, 256, 256)
LEFT[..., :128] = 1
RIGHT = 1 - LEFT


@pytest.fixture(scope="module")
def stage_c() -> StageC:
    return tamed(StageC(STAGE_C))  # type: ignore[return-value]


def run(
    stage_c: StageC,
    texts: Texts,
    settings: SamplerSettings = PLAIN,
    negative: Texts | None = None,
    seeds: tuple[int, ...] = (5,),
) -> Tensor:
    latent = torch.zeros(len(seeds), 16, 6, 6)
    return sample_stage_c(stage_c, texts, negative, latent, SampleNoise(seeds), settings)


def by_hand(stage_c: StageC, mix: Callable[[float, Callable[[Tensor], Tensor]], Tensor]) -> Tensor:
    """The same run with eps = mix(t, text -> its eps)."""
    start = SampleNoise([5]).draw((16, 6, 6))

    @torch.no_grad()
    def model(x: Tensor, t: float) -> Tensor:
        return mix(t, lambda text: stage_c(x, t, stage_c.prepare(text)))

    return to_embedding(sample(model, start, PLAIN.walk, "ddim", SampleNoise([5])))


def close(found: Tensor, expected: Tensor) -> bool:
    return torch.allclose(found, expected, rtol=1e-4, atol=1e-3)


def test_masked_texts_share_the_picture(stage_c: StageC) -> None:
    halves = [Text(STAR, LEFT), Text(RING, RIGHT)]
    left = on_grid(LEFT, (6, 6), 1)
    expected = by_hand(stage_c, lambda t, eps: left * eps(STAR) + (1 - left) * eps(RING))
    assert close(run(stage_c, halves), expected)
    assert not close(run(stage_c, STAR), expected)


def test_overlapping_texts_are_averaged_by_strength(stage_c: StageC) -> None:
    texts = [Text(STAR, LEFT, strength=3.0), Text(RING)]
    weight = 3 * on_grid(LEFT, (6, 6), 1)
    expected = by_hand(stage_c, lambda t, eps: (weight * eps(STAR) + eps(RING)) / (weight + 1))
    assert close(run(stage_c, texts), expected)


def test_the_strength_of_a_lone_text_changes_nothing(stage_c: StageC) -> None:
    assert torch.equal(run(stage_c, [Text(STAR, strength=0.3)]), run(stage_c, STAR))


def test_texts_follow_each_other_in_time(stage_c: StageC) -> None:
    texts = [Text(STAR, end=0.5), Text(RING, start=0.5)]

    def mix(t: float, eps: Callable[[Tensor], Tensor]) -> Tensor:
        if t == 0.5:
            return (eps(STAR) + eps(RING)) / 2
        return eps(STAR) if t > 0.5 else eps(RING)

    assert close(run(stage_c, texts), by_hand(stage_c, mix))


def test_texts_of_other_lengths_run_apart(stage_c: StageC) -> None:
    longer = torch.cat([RING, RING], dim=1)
    calls: list[int] = []
    hook = stage_c.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    found = run(stage_c, [Text(STAR, LEFT), Text(longer, RIGHT), Text(RING, RIGHT)])
    hook.remove()
    assert calls == [2, 1] * 6
    left, right = on_grid(LEFT, (6, 6), 1), on_grid(RIGHT, (6, 6), 1)

    def mix(t: float, eps: Callable[[Tensor], Tensor]) -> Tensor:
        return left * eps(STAR) + right * (eps(longer) + eps(RING)) / 2

    assert close(found, by_hand(stage_c, mix))


def test_several_texts_to_avoid(stage_c: StageC) -> None:
    settings = SamplerSettings(6, 3.0, "ddim")
    found = run(stage_c, STAR, settings, [Text(RING, LEFT), Text(-RING, RIGHT)])
    left = on_grid(LEFT, (6, 6), 1)

    def mix(t: float, eps: Callable[[Tensor], Tensor]) -> Tensor:
        return torch.lerp(left * eps(RING) + (1 - left) * eps(-RING), eps(STAR), 3.0)

    assert close(found, by_hand(stage_c, mix))


def test_a_batch_with_texts_and_masks_of_its_own_equals_its_singles(stage_c: StageC) -> None:
    settings = SamplerSettings(4, 2.0)
    both = torch.cat([STAR, RING])
    texts = [Text(both, torch.cat([LEFT, RIGHT])), Text(-both)]
    batch = run(stage_c, texts, settings, RING, seeds=(5, 6))
    alone = run(stage_c, [Text(RING, RIGHT), Text(-RING)], settings, RING, seeds=(6,))
    assert close(batch[1:], alone)


def test_stage_b_reads_several_texts() -> None:
    stage_b: StageB = tamed(StageB(STAGE_B))  # type: ignore[assignment]
    first, second = 30 * torch.randn(2, 1, 5, DECODER_WIDTH)
    embedding = torch.randn(1, 16, 6, 6)

    def draw(texts: Texts) -> Tensor:
        noise = SampleNoise([1])
        return sample_stage_b(stage_b, embedding, texts, None, None, noise, PLAIN)

    halves = draw([Text(first, LEFT), Text(second, RIGHT)])
    torch.testing.assert_close(draw([Text(first), Text(first)]), draw(first))
    for alone in (draw(first), draw(second)):
        assert not torch.allclose(halves, alone, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ([Text(STAR, end=0.4)], "no text of `positive` counts 100% of the way"),
        ([Text(STAR, end=0.4), Text(RING, start=0.6)], "counts 50% of the way"),
        ([Text(STAR, LEFT)], "some of the picture is under no text of `positive`"),
        ([Text(STAR, LEFT), Text(RING, RIGHT, strength=0.0)], "under no text"),
        ([Text(STAR), Text(RING, torch.ones(3, 1, 8, 8))], "there are 3 masks for 1 latents"),
        ([Text(STAR), Text(RING[..., :9])], r"\(1, 7, 9\); Stage C reads batch×tokens×64"),
    ],
)
def test_what_cannot_be_sampled_is_told(stage_c: StageC, texts: Texts, words: str) -> None:
    with pytest.raises(WireError, match=words):
        run(stage_c, texts)


def test_a_cell_has_the_mean_of_what_the_mask_covers() -> None:
    mask = torch.zeros(1, 1, 128, 128)
    mask[..., :64] = 1
    assert on_grid(mask, (3, 3), 2).shape == (2, 1, 3, 3)
    assert on_grid(mask, (2, 4), 1)[0, 0, 0].tolist() == [1, 1, 0, 0]
    assert on_grid(mask, (1, 1), 1).item() == 0.5
