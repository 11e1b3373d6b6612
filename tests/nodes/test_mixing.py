"""Pictures mixed, laid over each other, enlarged and changed, on the demo checkpoint."""

import pytest
import torch

from comfyui_wuerstchen.wuerstchen_core.errors import SettingError, WireError
from comfyui_wuerstchen.wuerstchen_core.training.demo.checker import check
from comfyui_wuerstchen.wuerstchen_core.training.demo.scenes import (
    COLORS,
    Attributes,
    draw,
    sample_scenes,
)

from .demo import call, decoder, empty, encode, prior

RED = Attributes("blue", "star", "red", "large", "center")
GREEN = Attributes("yellow", "circle", "green", "large", "center")
PLAIN = "a large red star in the center on a blue background"


def drawn(scene):
    """IMAGE 1×256×256×3."""
    scenes = sample_scenes(1, torch.Generator().manual_seed(0), [scene])
    return draw(scenes, 256).movedim(1, -1)


def meaning(parts, image):
    return call("WuerstchenImageEncode", image_encoder=parts["image_encoder"], pixels=image)


def seen(parts, latent, **changes):
    """What Stage B and A make of a Stage C latent: IMAGE."""
    samples = decoder(parts, latent, **{"steps": 8, **changes})
    return call("WuerstchenStageADecode", stage_a=parts["stage_a"], samples=samples)


def reading(image):
    return check(image.movedim(-1, 1))[0]


def distance(one, other):
    return (one - other).square().mean().item()


@pytest.fixture(scope="module")
def both(parts):
    """The latents of two pictures, and what Stage B and A make of each alone."""
    latents = [meaning(parts, drawn(scene)) for scene in (RED, GREEN)]
    return latents, [seen(parts, latent) for latent in latents]


def mixed(one, other, weights, method="slerp"):
    return call(
        "WuerstchenMixEmbeddings",
        latent_1=one,
        latent_2=other,
        weight_1=weights[0],
        weight_2=weights[1],
        method=method,
    )


@pytest.mark.parametrize("method", ["slerp", "weighted mean"])
def test_a_mix_goes_from_one_source_to_the_other(parts, both, method):
    latents, alone = both
    apart = distance(*alone)
    shown = [
        [distance(seen(parts, mixed(*latents, (1 - share, share), method)), one) for one in alone]
        for share in (0.0, 0.3, 0.5, 0.7, 1.0)
    ]
    (first, *_), (little, far), half, (still_far, near), (*_, last) = shown
    assert first == last == 0
    assert little < 0.3 * far and near < 0.3 * still_far
    assert all(0.1 * apart < one < apart for one in half)  # something of both is there


def test_both_pictures_are_seen_in_their_mix(parts, both):
    made = seen(parts, mixed(*both[0], (1.0, 1.0)))[0]
    colors = {name: torch.tensor(rgb) for name, rgb in COLORS.items()}
    shares = {
        name: ((made - rgb).norm(dim=-1) < 0.35).float().mean().item()
        for name, rgb in colors.items()
    }
    assert shares["red"] + shares["blue"] > 0.005 and shares["green"] + shares["yellow"] > 0.1


def test_a_weight_of_one_beside_none_is_the_source(both):
    (one, other), _ = both
    assert torch.equal(mixed(one, other, (0.0, 1.0))["samples"], other["samples"])
    assert torch.equal(mixed(one, other, (2.0, 0.0))["samples"], one["samples"])
    assert mixed(one, other, (1.0, 1.0))["wuerstchen_size"] == (256, 256)
    with pytest.raises(SettingError, match="are no shares"):
        mixed(one, other, (0.0, 0.0))


def test_what_is_no_stage_c_latent_is_refused(both):
    (one, _), _ = both
    with pytest.raises(WireError, match="a Stage C latent"):
        mixed(one, {"samples": torch.zeros(1, 4, 64, 64)}, (1.0, 1.0))
    with pytest.raises(WireError, match="pictures of one size"):
        mixed(one, empty(384, 256), (1.0, 1.0))


def test_a_text_mixes_with_a_picture(parts, both):
    (_, green), (_, alone) = both
    text = prior(parts, empty(), positive=encode(parts, PLAIN), steps=20)
    made = seen(parts, mixed(text, green, (1.0, 1.0)))
    from_text = seen(parts, text)
    apart = distance(from_text, alone)
    assert distance(made, from_text) < 0.8 * apart and distance(made, alone) < 0.8 * apart


def test_the_halves_of_a_collage_are_those_of_their_pictures(parts, both):
    (below, above), (first, second) = both
    mask = torch.zeros(1, 256, 256)
    mask[:, :, 128:] = 1
    latent = call("WuerstchenCollage", below=below, above=above, mask=mask)
    assert torch.equal(latent["samples"][..., :3], below["samples"][..., :3])
    assert torch.equal(latent["samples"][..., 3:], above["samples"][..., 3:])
    made = seen(parts, latent)
    left, right = (
        (slice(None), slice(None), slice(0, 100)),
        (slice(None), slice(None), slice(156, 256)),
    )
    assert distance(made[left], first[left]) < 0.2 * distance(made[left], second[left])
    assert distance(made[right], second[right]) < 0.2 * distance(made[right], first[right])


def test_a_mask_of_any_size_covers_the_picture_not_its_canvas(both):
    below, above = empty(130, 256), empty(130, 256)  # a canvas of 256×256, of which the middle
    above["samples"] = above["samples"] + 1
    mask = torch.zeros(1, 10, 2)
    mask[..., 1:] = 1
    (row,) = call("WuerstchenCollage", below=below, above=above, mask=mask)["samples"][0, 0, :1]
    assert row[:2].tolist() == [0, 0] and row[4:].tolist() == [1, 1]
    grey = call("WuerstchenCollage", below=below, above=above, mask=torch.full((1, 4, 4), 0.25))
    assert torch.allclose(grey["samples"], torch.tensor(0.25))


def test_two_passes_keep_the_composition_at_twice_the_size(parts):
    """The demo, which knows only its own size, needs a small denoise to keep it."""
    states = encode(parts, "a large yellow circle in the center on a purple background")
    sampling = {"positive": states, "steps": 29, "cfg": 1.0, "scheduler": "uniform"}
    first = prior(parts, empty(), **sampling)
    large = call("WuerstchenUpscaleStageC", samples=first, width=512, height=512)
    assert large["samples"].shape == (1, 16, 12, 12) and large["wuerstchen_size"] == (512, 512)
    enlarged = seen(parts, large)
    found = reading(enlarged)
    assert (found.background, found.color, found.place) == ("purple", "yellow", "center")

    twice = [prior(parts, large, denoise=share, **sampling) for share in (0.1, 0.5)]
    at_once = seen(parts, prior(parts, empty(512, 512), **sampling))
    far = [distance(seen(parts, latent), enlarged) for latent in twice]
    assert 0 < far[0] < 0.5 * far[1] and far[1] <= 1.1 * distance(at_once, enlarged)
    made = seen(parts, twice[0])
    assert made.shape == (1, 512, 512, 3)
    found = reading(made)
    assert (found.background, found.color, found.place) == ("purple", "yellow", "center")


# Image to image: how far meaning (Stage C) and detail (Stage B) may go.


def changed(parts, image, of_c, of_b, **changes):
    """IMAGE -> IMAGE under another text."""
    latent = prior(
        parts,
        meaning(parts, image),
        positive=encode(parts, "a large yellow ring in the center on a white background"),
        denoise=of_c,
        cfg=2.0,
        steps=16,
    )
    detail = call("WuerstchenStageAEncode", stage_a=parts["stage_a"], pixels=image)
    return seen(parts, latent, latent_image=detail, denoise=of_b, **changes)


def test_at_0_the_picture_comes_back_as_stage_a_rebuilds_it(parts):
    image = drawn(RED)
    detail = call("WuerstchenStageAEncode", stage_a=parts["stage_a"], pixels=image)
    rebuilt = call("WuerstchenStageADecode", stage_a=parts["stage_a"], samples=detail)
    assert torch.allclose(changed(parts, image, 0.0, 0.0), rebuilt, atol=1e-4)
    assert distance(rebuilt, image) < 1e-2


def test_at_1_the_picture_counts_for_nothing(parts):
    assert torch.equal(changed(parts, drawn(RED), 1.0, 1.0), changed(parts, drawn(GREEN), 1.0, 1.0))


def test_the_smaller_the_strengths_the_nearer_the_picture(parts):
    image = drawn(RED)
    far = [distance(changed(parts, image, s, s), image) for s in (0.2, 0.6, 1.0)]
    assert far == sorted(far) and far[0] < 0.5 * far[2]


def test_each_strength_changes_its_own(parts):
    """With Stage B at 0 the meaning does not matter, with Stage C at 0 the details alone vary."""
    image = drawn(RED)
    assert torch.equal(changed(parts, image, 0.0, 0.0), changed(parts, image, 0.9, 0.0))
    found = reading(changed(parts, image, 0.0, 1.0))
    assert (found.background, found.color) == ("blue", "red")
