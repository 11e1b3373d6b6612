"""v1's sampler: how tokens are picked, and what does not depend on batch or memory."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from comfyui_wuerstchen.wuerstchen_core.errors import SettingError, WireError
from comfyui_wuerstchen.wuerstchen_core.noise import SampleNoise
from comfyui_wuerstchen.wuerstchen_core.sampling import StepInfo
from comfyui_wuerstchen.wuerstchen_core.v1 import sampling
from comfyui_wuerstchen.wuerstchen_core.v1.generate import (
    codebook_of,
    codes_of,
    decode_tokens,
    encode_tokens,
    sample_tokens,
    tokens_of,
)
from comfyui_wuerstchen.wuerstchen_core.v1.paella import Paella
from comfyui_wuerstchen.wuerstchen_core.v1.sampling import TokenSettings, drawn, renoised

from .tiny import WIDTH, networks

SETTINGS = TokenSettings(steps=3)
SIZE = (32, 64)  # tokens of 3×6 cells


@pytest.fixture(scope="module")
def stage_b() -> Paella:
    return networks()["stage_b"]  # type: ignore[return-value]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def run(
    stage_b: Paella, batch: int = 1, seed: int = 5, settings: TokenSettings = SETTINGS, **more
) -> Tensor:
    embedding = noise(4, 16, 3, 6)[:1].expand(batch, -1, -1, -1)
    text = noise(2, 77, WIDTH, seed=1)
    seeds = SampleNoise(range(seed, seed + batch))
    given = {"positive": text[:1], "negative": text[1:], "latent": None, **more}
    return sample_tokens(stage_b, embedding, noise=seeds, settings=settings, **given)


def test_tokens_are_drawn_by_their_probabilities() -> None:
    probabilities = torch.tensor([0.1, 0.0, 0.6, 0.3]).expand(100_000, -1)
    chances = torch.rand(len(probabilities), generator=torch.Generator().manual_seed(0))
    shares = drawn(probabilities, chances).bincount(minlength=4) / len(chances)
    assert torch.allclose(shares, probabilities[0], atol=0.01) and shares[1] == 0
    ends = torch.tensor([0.0, 0.0999, 0.1001, 0.6999, 0.7001, 1 - 2**-24])
    assert drawn(probabilities[:6], ends).tolist() == [0, 0, 2, 2, 3, 3]


def test_the_share_of_random_tokens_is_the_time() -> None:
    tokens, random = torch.zeros(1, 200, 200).long(), torch.ones(1, 200, 200).long()
    made = renoised(tokens, 0.3, random, SampleNoise([0])).float().mean()
    assert abs(made - 0.3) < 0.02


def test_a_lower_temperature_picks_likelier_tokens(stage_b: Paella) -> None:
    likeliest = run(stage_b, settings=TokenSettings(steps=1, mode="argmax"))
    right = {
        temperature: (run(stage_b, settings=TokenSettings(1, temperature=(temperature,) * 2))
        == likeliest).float().mean()
        for temperature in (0.02, 0.5, 2.0)
    }  # fmt: skip
    assert right[0.02] > 0.9 and right[0.02] > right[0.5] > right[2.0]


def test_a_batch_equals_its_singles(stage_b: Paella) -> None:
    batch = run(stage_b, batch=3)
    assert batch.shape == (3, 1, *SIZE) and batch.dtype == torch.float32
    assert not torch.equal(batch[0], batch[1])
    for i in range(3):
        same = (run(stage_b, seed=5 + i)[0] == batch[i]).float().mean()
        assert same > 0.999  # a token may lie on the border of two


def test_how_many_tokens_are_picked_at_once_changes_nothing(
    stage_b: Paella, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(stage_b)
    monkeypatch.setattr(sampling, "TOKENS_AT_ONCE", 100)
    assert (run(stage_b) == whole).float().mean() > 0.999


def test_guidance_counts_and_1_is_none(stage_b: Paella) -> None:
    plain = run(stage_b, settings=replace(SETTINGS, cfg=(1.0, 1.0)), negative=None)
    assert not torch.equal(plain, run(stage_b))
    assert not torch.equal(run(stage_b), run(stage_b, settings=replace(SETTINGS, cfg=(2.0, 4.0))))
    with pytest.raises(WireError, match="negative"):
        run(stage_b, negative=None)


def test_cfg_and_temperature_are_linear_over_the_steps() -> None:
    settings = TokenSettings(5, cfg=(1.0, 3.0), temperature=(1.0, 0.6))
    assert [settings.cfg_at(i) for i in range(5)] == [1.0, 1.5, 2.0, 2.5, 3.0]
    assert [round(settings.temperature_at(i), 4) for i in range(5)] == [1.0, 0.9, 0.8, 0.7, 0.6]
    assert TokenSettings(4).times == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert TokenSettings(2, start=0.5, end=0.25).times == [0.5, 0.375, 0.25]


def test_quant_reads_the_codebook(stage_b: Paella) -> None:
    settings = replace(SETTINGS, mode="quant")
    with pytest.raises(SettingError, match="codebook"):
        run(stage_b, settings=settings)
    codebook = codebook_of(networks()["stage_a"])  # type: ignore[arg-type]
    found = run(stage_b, settings=settings, codebook=codebook)
    assert not torch.equal(found, run(stage_b))
    # At a low temperature the codebook's mean is the likeliest entry itself.
    cold = replace(settings, steps=1, temperature=(0.001, 0.001))
    likeliest = run(stage_b, settings=replace(cold, mode="argmax"))
    assert (run(stage_b, settings=cold, codebook=codebook) == likeliest).float().mean() > 0.99


def test_from_a_picture(stage_b: Paella) -> None:
    start = torch.full((1, 1, *SIZE), 3.0)
    assert torch.equal(run(stage_b, settings=replace(SETTINGS, start=0.0), latent=start), start)
    little = run(stage_b, settings=replace(SETTINGS, steps=1, start=0.1), latent=start)
    assert not torch.equal(little, run(stage_b, settings=replace(SETTINGS, steps=1)))
    with pytest.raises(WireError, match="latent_image"):
        run(stage_b, settings=replace(SETTINGS, start=0.5))
    with pytest.raises(WireError, match="is expected"):
        run(stage_b, settings=replace(SETTINGS, start=0.5), latent=start[..., :32])


def test_a_mask_keeps_the_rest(stage_b: Paella) -> None:
    kept, mask = torch.full((1, 1, *SIZE), 3.0), torch.zeros(1, 1, 128, 256)
    mask[..., :, :128] = 1
    found = run(stage_b, latent=kept, mask=mask)
    assert (found[..., 32:] == 3).all() and (found[..., :32] != 3).float().mean() > 0.5


def test_steps_are_told_and_can_be_cancelled(stage_b: Paella) -> None:
    told: list[StepInfo] = []
    run(stage_b, callback=told.append)
    assert [(info.step, info.steps) for info in told] == [(0, 3), (1, 3), (2, 3)]
    assert told[0].x0.shape == (1, 1, *SIZE) and told[0].t == 1 and told[-1].t_next == 0

    def stop(info: StepInfo) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(stage_b, callback=stop)


@pytest.mark.parametrize(
    "wrong",
    [{"steps": 0}, {"temperature": (1.0, 0.0)}, {"mode": "best"}, {"start": 0.2, "end": 0.5}],
)
def test_settings_out_of_range_are_named(wrong: dict) -> None:
    with pytest.raises(SettingError, match=next(iter(wrong)) if len(wrong) == 1 else "times"):
        TokenSettings(**wrong)


def test_latents_of_v2_are_refused(stage_b: Paella) -> None:
    seeds, text = SampleNoise([0]), noise(1, 77, WIDTH)
    with pytest.raises(WireError, match="comes from v2"):
        sample_tokens(stage_b, noise(1, 16, 3, 3) * 42 - 1, text, text, None, seeds, SETTINGS)
    with pytest.raises(WireError, match="Stage C latent"):
        sample_tokens(stage_b, noise(1, 4, 3, 3), text, text, None, seeds, SETTINGS)
    with pytest.raises(WireError, match="Stage B reads"):
        sample_tokens(stage_b, noise(1, 16, 3, 3), text[..., :8], text, None, seeds, SETTINGS)


@pytest.mark.parametrize(
    ("latent", "words"),
    [
        (torch.zeros(1, 4, 8, 8), "tokens, batch×1"),
        (torch.full((1, 1, 8, 8), 0.5), "fractions"),
        (torch.full((1, 1, 8, 8), float("nan")), "fractions"),
        (torch.full((1, 1, 8, 8), 16.0), "0 to 15"),
        (torch.full((1, 1, 8, 8), -1.0), "0 to 15"),
    ],
)
def test_what_are_no_tokens_is_named(latent: Tensor, words: str) -> None:
    with pytest.raises(WireError, match=words):
        tokens_of(latent, 16)


@torch.no_grad()
def test_tokens_are_pictures_through_the_codebook() -> None:
    stage_a = networks()["stage_a"]
    tokens = torch.randint(16, (2, 1, 8, 12), generator=torch.Generator().manual_seed(0)).float()
    codes = stage_a.vquantizer.embedding.weight[tokens[:, 0].long()].movedim(-1, 1)
    assert torch.equal(codes_of(stage_a, tokens), codes)
    pixels = decode_tokens(stage_a, tokens)
    assert torch.allclose(pixels, stage_a.decode(codes).clamp(0, 1), atol=1e-5)
    # Encoding takes the nearest entries.
    latent = stage_a.encode(pixels)
    distances = latent[:, None] - stage_a.vquantizer.embedding.weight[None, :, :, None, None]
    nearest = distances.square().sum(dim=2).argmin(dim=1)
    assert torch.equal(encode_tokens(stage_a, pixels), nearest[:, None].float())
