"""Masks, areas, time ranges, guidance and seamless pictures: the nodes on the demo checkpoint."""

from typing import Any

import pytest
import torch
from torch import Tensor

from comfyui_wuerstchen.nodes.conditions import texts_of
from comfyui_wuerstchen.wuerstchen_core.errors import SettingError, WireError
from comfyui_wuerstchen.wuerstchen_core.geometry import Geometry
from comfyui_wuerstchen.wuerstchen_core.training.demo.checker import check
from comfyui_wuerstchen.wuerstchen_core.training.demo.scenes import COLORS

from .demo import call, decoder, empty, encode, picture, prior

STATES = torch.zeros(1, 77, 192)
SIZE = Geometry(200, 130)


def decoded(parts: Any, latent: Any, **changes: Any) -> Tensor:
    samples = decoder(parts, latent, **changes)
    return call("WuerstchenStageADecode", stage_a=parts["stage_a"], samples=samples)


def background(pixels: Tensor) -> str:
    """The colour most of these pixels have, H×W×3."""
    names, colours = list(COLORS), torch.tensor(list(COLORS.values()))
    nearest = torch.cdist(pixels.reshape(-1, 3), colours).argmin(dim=1)
    return names[int(nearest.mode().values)]


def test_what_stock_nodes_write_is_read() -> None:
    mask = torch.zeros(1, 130, 200)
    mask[..., 100:] = 1
    options = {"mask": mask, "mask_strength": 0.5, "strength": 2.0}
    ranged = {"start_percent": 0.2, "end_percent": 0.7}
    first, second = texts_of([[STATES, options], [STATES, ranged]], "positive", SIZE) or []
    assert first.mask is not None and first.mask.shape == (1, 1, 256, 256)
    assert first.mask[0, 0, 100].tolist() == [0.0] * 128 + [0.5] * 128
    assert (first.strength, first.start, first.end) == (2.0, 0.0, 1.0)
    assert second.mask is None and (second.start, second.end) == (0.2, 0.7)


@pytest.mark.parametrize(
    "area", [(4, 8, 6, 2), ("percentage", 32 / 130, 64 / 200, 48 / 130, 16 / 200)]
)
def test_an_area_is_a_box_of_the_request(area: tuple[Any, ...]) -> None:
    (text,) = texts_of([[STATES, {"area": area}]], "positive", SIZE) or []
    assert text.mask is not None
    mask = SIZE.crop(text.mask)[0, 0]
    assert mask[48:80, 16:80].min() == 1 and mask.sum() == 32 * 64


def test_an_empty_conditioning_is_told() -> None:
    with pytest.raises(WireError, match="`positive` holds no text"):
        texts_of([], "positive", SIZE)


def test_masked_texts_paint_their_parts(parts: Any) -> None:
    left = torch.zeros(1, 256, 256)
    left[..., :128] = 1
    one = encode(parts, "a small red star on the left on a yellow background")
    two = encode(parts, "a small red star on the left on a blue background")
    both = [[one[0][0], {"mask": left}], [two[0][0], {"mask": 1 - left}]]
    image = decoded(parts, prior(parts, empty(), positive=both, cfg=2.0, steps=20))
    assert background(image[0, :, :96]) == "yellow"
    assert background(image[0, :, 160:]) == "blue"


def test_texts_by_time_end_in_the_later_one(parts: Any) -> None:
    one = encode(parts, "a large blue circle in the center on a green background")
    two = encode(parts, "a large red star in the center on a green background")
    texts = [[one[0][0], {"end_percent": 0.2}], [two[0][0], {"start_percent": 0.2}]]
    latent = prior(parts, empty(), positive=texts, cfg=2.0, steps=20)
    found = check(decoded(parts, latent).movedim(-1, 1))[0]
    assert (found.background, found.color) == ("green", "red")
    alone = prior(parts, empty(), positive=two, cfg=2.0, steps=20)
    assert not torch.equal(latent["samples"], alone["samples"])


@pytest.fixture(scope="module")
def inpainted(parts: Any) -> tuple[Tensor, Tensor, Tensor]:
    """(the picture before, after, and the mask)"""
    before = picture()
    mask = torch.zeros(1, 256, 256)
    mask[:, 64:200, 64:200] = 1
    encoded = call("WuerstchenImageEncode", image_encoder=parts["image_encoder"], pixels=before)
    latent = call("WuerstchenStageAEncode", stage_a=parts["stage_a"], pixels=before)
    positive = encode(parts, "a large blue circle in the center on a red background")
    found = prior(parts, {**encoded, "noise_mask": mask}, positive=positive, cfg=2.0, steps=15)
    after = decoded(parts, found, latent_image={**latent, "noise_mask": mask}, steps=8)
    return before, after, mask


def test_the_open_part_follows_the_prompt(inpainted: tuple[Tensor, Tensor, Tensor]) -> None:
    before, after, mask = inpainted
    open_ = mask[0] > 0
    assert (after - before)[0][open_].abs().mean() > 0.1
    assert background(after[0, 100:160, 100:160]) == "blue"


def test_the_rest_is_that_of_the_picture(
    parts: Any, inpainted: tuple[Tensor, Tensor, Tensor]
) -> None:
    """To what Stage A keeps of a picture; Image Composite Masked makes it exact."""
    before, after, mask = inpainted
    far = torch.ones(256, 256, dtype=torch.bool)
    far[48:216, 48:216] = False  # Stage A sees some cells beyond
    latent = call("WuerstchenStageAEncode", stage_a=parts["stage_a"], pixels=before)
    rebuilt = call("WuerstchenStageADecode", stage_a=parts["stage_a"], samples=latent)
    torch.testing.assert_close(after[0][far], rebuilt[0][far], rtol=0, atol=1e-3)


def test_guidance_nodes_change_only_what_they_give(parts: Any) -> None:
    settings = {"start": 0.0, "end": 1.0, "rescale": 0.0, "eta": 0.0, "momentum": -0.5}
    settings |= {"kind": "plain", "norm_threshold": 15.0}

    def stage_c(**changes: Any) -> Any:
        return call("WuerstchenStageCGuidance", stage_c=parts["stage_c"], **settings | changes)

    plain = prior(parts, empty())["samples"]
    assert torch.equal(prior(parts, empty(), stage_c=stage_c())["samples"], plain)
    for changes in ({"kind": "apg"}, {"rescale": 0.7}, {"start": 0.3}, {"end": 0.6}):
        other = prior(parts, empty(), stage_c=stage_c(**changes))["samples"]
        assert other.isfinite().all() and not torch.allclose(other, plain, atol=0.1), changes
    assert torch.equal(prior(parts, empty())["samples"], plain)
    with pytest.raises(SettingError, match="starts at 0.5 and ends at 0.5"):
        stage_c(start=0.5, end=0.5)


def test_embedding_and_text_are_guided_apart(parts: Any) -> None:
    settings = {"start": 0.0, "end": 1.0, "rescale": 0.0, "eta": 0.0, "momentum": -0.5}
    settings |= {"kind": "plain", "norm_threshold": 15.0}
    node = {"stage_b": parts["stage_b"], **settings}
    texts = {
        "positive": encode(parts, "a red star", "decoder"),
        "negative": encode(parts, "", "decoder"),
    }
    latent = prior(parts, empty())

    def run(apart: float, cfg: float) -> Tensor:
        stage_b = call("WuerstchenStageBGuidance", **node, embedding_cfg=apart)
        return decoder(parts, latent, stage_b=stage_b, cfg=cfg, **texts)["samples"]

    torch.testing.assert_close(run(2.0, 2.0), run(0.0, 2.0), rtol=1e-3, atol=1e-3)
    assert not torch.allclose(run(1.2, 2.0), run(0.0, 2.0), atol=1e-2)
    assert not torch.allclose(run(2.0, 0.0), run(0.0, 0.0), atol=1e-2)


def seam(image: Tensor) -> tuple[float, float]:
    """The step across the wrap, and the largest step between columns that are neighbours."""
    step = (image - image.roll(1, dims=2)).abs().mean(dim=(0, 1, 3))
    return step[0].item(), step[1:].max().item()


def test_a_seamless_picture_goes_on_at_its_edges(parts: Any) -> None:
    stages = {name: parts[name] for name in ("stage_c", "stage_b", "stage_a")}
    stage_c, stage_b, stage_a = call("WuerstchenSeamless", **stages, edges="both")
    positive = encode(parts, "a large red star on the left on a blue background")
    latent = prior(parts, empty(), positive=positive, stage_c=stage_c)

    def paint(latent: Any) -> Tensor:
        samples = decoder(parts, latent, stage_b=stage_b, sampler_name="ddim", denoise=1.0)
        return call("WuerstchenStageADecode", stage_a=stage_a, samples=samples)

    across, within = seam(paint(latent))
    assert across <= within
    with pytest.raises(WireError, match="ask for 256×256"):
        prior(parts, empty(200, 130), stage_c=stage_c)
