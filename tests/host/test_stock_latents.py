"""The stock nodes on latents: their formulas, and what our samplers make of the results."""

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from comfyui_wuerstchen.host.stock.latent_batches import (
    LatentBatch,
    LatentFromBatch,
    RepeatLatentBatch,
)
from comfyui_wuerstchen.host.stock.latent_math import (
    LatentAdd,
    LatentBlend,
    LatentInterpolate,
    LatentMultiply,
    LatentSubtract,
)
from comfyui_wuerstchen.host.stock.latent_regions import LatentComposite, SetLatentNoiseMask
from comfyui_wuerstchen.nodes import NODE_CLASS_MAPPINGS
from comfyui_wuerstchen.wuerstchen_core.errors import WireError

SIZE = (200, 130)


def latent(*shape: int, seed: int = 0, **keys: Any) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    return {"samples": torch.randn(*shape, generator=generator), "wuerstchen_size": SIZE, **keys}


# Batches.


@pytest.mark.parametrize(
    ("index", "length", "kept"),
    [(0, 1, [0]), (2, 2, [2, 3]), (3, 64, [3, 4]), (-2, 1, [3]), (-9, 1, [0]), (99, 5, [4])],
)
def test_taking_from_a_batch(index, length, kept):
    batch = latent(5, 4, 2, 2)
    (taken,) = LatentFromBatch().take(batch, index, length)
    assert torch.equal(taken["samples"], batch["samples"][kept])
    assert taken["batch_index"] == kept and taken["wuerstchen_size"] == SIZE
    (again,) = LatentFromBatch().take({**batch, "batch_index": [7, 5, 3, 2, 1]}, index, length)
    assert again["batch_index"] == [[7, 5, 3, 2, 1][i] for i in kept]


@pytest.mark.parametrize("masks", [1, 2, 5])
def test_a_mask_goes_with_its_sample(masks):
    mask = torch.arange(masks).float().reshape(masks, 1, 1, 1)
    (taken,) = LatentFromBatch().take(latent(5, 4, 2, 2, noise_mask=mask), 2, 2)
    expected = [[0.0], [0.0, 1.0], [2.0, 3.0]][(1, 2, 5).index(masks)]
    assert taken["noise_mask"].flatten().tolist() == expected


def test_repeating_a_batch_goes_on_counting():
    batch = latent(2, 4, 2, 2)
    (repeated,) = RepeatLatentBatch().repeat(batch, 3)
    assert torch.equal(repeated["samples"], torch.cat([batch["samples"]] * 3))
    assert "batch_index" not in repeated and repeated["wuerstchen_size"] == SIZE
    (repeated,) = RepeatLatentBatch().repeat({**batch, "batch_index": [4, 7]}, 3)
    assert repeated["batch_index"] == [4, 7, 8, 11, 12, 15]


def test_joining_batches():
    first, second = latent(2, 4, 3, 5), latent(1, 4, 6, 10, seed=1, batch_index=[9])
    (both,) = LatentBatch().join(first, second)
    resized = F.interpolate(second["samples"], size=(3, 5), mode="bilinear")
    assert torch.equal(both["samples"], torch.cat([first["samples"], resized]))
    assert both["batch_index"] == [0, 1, 9] and both["wuerstchen_size"] == SIZE


# Arithmetic.


def test_adding_subtracting_multiplying():
    one, other = latent(3, 4, 2, 2), latent(2, 4, 2, 2, seed=1)
    a, b = one["samples"], other["samples"][[0, 1, 0]]
    assert torch.equal(LatentAdd().combine(one, other)[0]["samples"], a + b)
    assert torch.equal(LatentSubtract().combine(one, other)[0]["samples"], a - b)
    (product,) = LatentMultiply().multiply(one, -0.5)
    assert torch.equal(product["samples"], a * -0.5) and product["wuerstchen_size"] == SIZE


def test_blending():
    one, other = latent(1, 4, 4, 4), latent(1, 4, 8, 8, seed=1)
    (mixed,) = LatentBlend().blend(one, other, 0.25)
    resized = F.interpolate(other["samples"], size=(4, 4), mode="bicubic")
    assert torch.allclose(mixed["samples"], one["samples"] * 0.25 + resized * 0.75)


def test_interpolating_keeps_lengths_and_each_sample_of_a_batch():
    one, other = latent(3, 4, 2, 2), latent(3, 4, 2, 2, seed=1)
    (halfway,) = LatentInterpolate().interpolate(one, other, 0.5)
    lengths = [x["samples"].norm(dim=1) for x in (one, other, halfway)]
    assert torch.allclose(lengths[2], (lengths[0] + lengths[1]) / 2, atol=1e-5)
    for i in range(3):
        alone = [{"samples": x["samples"][i : i + 1]} for x in (one, other)]
        (single,) = LatentInterpolate().interpolate(*alone, 0.5)
        assert torch.equal(single["samples"][0], halfway["samples"][i])
    (first,) = LatentInterpolate().interpolate(one, other, 1.0)
    assert torch.allclose(first["samples"], one["samples"], atol=1e-6)
    (nothing,) = LatentInterpolate().interpolate(
        {"samples": torch.zeros(1, 4, 2, 2)}, {"samples": torch.zeros(1, 4, 2, 2)}, 0.5
    )
    assert not nothing["samples"].any()


@pytest.mark.parametrize(
    "mix",
    [
        lambda a, b: LatentAdd().combine(a, b),
        lambda a, b: LatentBlend().blend(a, b, 0.5),
        lambda a, b: LatentBatch().join(a, b),
        lambda a, b: LatentComposite().paste(a, b, 0, 0),
    ],
)
def test_latents_of_two_stages_do_not_mix(mix):
    with pytest.raises(WireError, match="the same stage"):
        mix(latent(1, 16, 3, 3), latent(1, 4, 3, 3))


def test_blending_batches_of_different_lengths():
    assert len(LatentBlend().blend(latent(1, 4, 2, 2), latent(3, 4, 2, 2), 0.5)[0]["samples"]) == 3
    with pytest.raises(WireError, match="2 latents, the other 3"):
        LatentBlend().blend(latent(2, 4, 2, 2), latent(3, 4, 2, 2), 0.5)


# Pasting.


def test_pasting_cuts_at_the_border():
    below, above = latent(2, 4, 6, 8), latent(1, 4, 5, 5, seed=1)
    before = below["samples"].clone()
    (pasted,) = LatentComposite().paste(below, above, 5 * 8, 3 * 8)
    assert torch.equal(
        pasted["samples"][..., 3:, 5:], above["samples"][..., :3, :3].expand(2, -1, -1, -1)
    )
    assert torch.equal(pasted["samples"][..., :3, :], before[..., :3, :])
    assert torch.equal(below["samples"], before)
    (outside,) = LatentComposite().paste(below, latent(1, 4, 99, 99), 800, 800)
    assert torch.equal(outside["samples"], before)


def test_feathering_fades_inner_edges():
    below = {"samples": torch.zeros(1, 4, 6, 9)}
    above = {"samples": torch.ones(1, 4, 6, 6)}
    (pasted,) = LatentComposite().paste(below, above, 8, 0, 16)
    row = torch.tensor([0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 0.5, 0.0, 0.0])
    assert torch.equal(pasted["samples"], row.expand(1, 4, 6, 9))


def test_a_noise_mask_is_set_and_our_samplers_keep_what_it_leaves_out(parts):
    given, mask = latent(2, 16, 3, 3), torch.zeros(2, 8, 8)
    (marked,) = SetLatentNoiseMask().set_mask(given, mask)
    assert marked["noise_mask"].shape == (2, 1, 8, 8)
    kept = stage_c(parts, marked)["samples"]
    assert torch.allclose(kept, given["samples"], atol=1e-3)


# With our samplers: picture k of a batch can be made alone, at either stage.


def call(node_id: str, **inputs: Any) -> Any:
    node = NODE_CLASS_MAPPINGS[node_id]
    return getattr(node(), node.FUNCTION)(**inputs)


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    names = NODE_CLASS_MAPPINGS["WuerstchenLoadPipeline"].RETURN_NAMES
    loaded = call("WuerstchenLoadPipeline", folder="wuerstchen-demo", dtype="float32")
    return dict(zip(names, loaded, strict=True))


SAMPLING = {"seed": 3, "steps": 2, "cfg": 0.0, "sampler_name": "ddpm", "denoise": 1.0}


def stage_c(parts: dict[str, Any], start: dict[str, Any]) -> dict[str, Any]:
    encoder = parts["prior_text_encoder"]
    (positive,) = call("WuerstchenTextEncode", text_encoder=encoder, text="a red star")
    settings = {**SAMPLING, "scheduler": "default", "positive": positive}
    return call(
        "WuerstchenStageCSampler", stage_c=parts["stage_c"], latent_image=start, **settings
    )[0]


def stage_b(parts: dict[str, Any], embedding: dict[str, Any]) -> torch.Tensor:
    (sampled,) = call(
        "WuerstchenStageBSampler",
        stage_b=parts["stage_b"],
        stage_c_latent=embedding,
        scheduler="uniform",
        **SAMPLING,
    )
    return sampled["samples"]


def empty(batch_size: int) -> dict[str, Any]:
    return call("WuerstchenEmptyLatent", width=128, height=128, batch_size=batch_size)[0]


@pytest.fixture(scope="module")
def batch(parts) -> tuple[dict[str, Any], torch.Tensor]:
    """Three pictures at once, after Stage C and after Stage B."""
    embedding = stage_c(parts, empty(3))
    return embedding, stage_b(parts, embedding)


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.allclose(one, other, atol=1e-4)


def test_picture_k_alone_from_the_empty_latent(parts, batch):
    (start,) = LatentFromBatch().take(empty(3), 2, 1)
    alone = stage_c(parts, start)
    assert alone["batch_index"] == [2] and alone["wuerstchen_size"] == (128, 128)
    assert close(alone["samples"], batch[0]["samples"][2:])
    assert close(stage_b(parts, alone), batch[1][2:])
    assert not close(alone["samples"], batch[0]["samples"][:1])


def test_picture_k_alone_after_stage_c(parts, batch):
    (taken,) = LatentFromBatch().take(batch[0], 1, 1)
    assert close(stage_b(parts, taken), batch[1][1:2])


def test_a_repeated_latent_is_a_batch(parts, batch):
    (repeated,) = RepeatLatentBatch().repeat(empty(1), 3)
    assert close(stage_c(parts, repeated)["samples"], batch[0]["samples"])
    (last,) = LatentFromBatch().take(empty(3), 1, 1)
    (two,) = RepeatLatentBatch().repeat(last, 2)
    assert close(stage_c(parts, two)["samples"], batch[0]["samples"][1:])


def test_joined_latents_keep_their_pictures(parts, batch):
    picked = [LatentFromBatch().take(empty(3), k, 1)[0] for k in (2, 0)]
    (joined,) = LatentBatch().join(*picked)
    assert close(stage_c(parts, joined)["samples"], batch[0]["samples"][[2, 0]])
