"""The stock nodes that say where: masks reshaped, pictures pasted and padded, texts limited."""

import pytest
import torch

from comfyui_wuerstchen.host.stock.compositing import ImageCompositeMasked, ImagePadForOutpaint
from comfyui_wuerstchen.host.stock.conditioning_regions import (
    ConditioningSetArea,
    ConditioningSetAreaPercentage,
    ConditioningSetAreaStrength,
    ConditioningSetMask,
)
from comfyui_wuerstchen.host.stock.mask_tools import (
    CropMask,
    FeatherMask,
    GrowMask,
    MaskComposite,
    ThresholdMask,
)
from comfyui_wuerstchen.wuerstchen_core.errors import WireError


def picture(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def dot(side=9):
    mask = torch.zeros(1, side, side)
    mask[0, side // 2, side // 2] = 1
    return mask


def test_a_mask_grows_as_a_diamond_or_a_square():
    assert GrowMask().grow(dot(), 2, True)[0].sum() == 13
    assert GrowMask().grow(dot(), 2, False)[0].sum() == 25
    assert GrowMask().grow(dot(), 16384, True)[0].all()


def test_shrinking_undoes_growing():
    (grown,) = GrowMask().grow(dot(), 3, False)
    assert torch.equal(GrowMask().grow(grown, -3, False)[0], dot())
    assert torch.equal(GrowMask().grow(dot(), 0, True)[0], dot())


def test_feathering_fades_at_the_edges_named():
    (mask,) = FeatherMask().feather(torch.ones(6, 8), left=4, top=0, right=0, bottom=2)
    assert torch.equal(mask[0, 0], torch.tensor([0.25, 0.5, 0.75, 1, 1, 1, 1, 1]))
    assert torch.equal(mask[0, :, -1], torch.tensor([1, 1, 1, 1, 1, 0.5]))


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        ("multiply", [0.2, 0.0, 0.3, 0.9]),
        ("add", [0.2, 0.0, 1.0, 1.0]),
        ("subtract", [0.2, 0.0, 0.0, 0.0]),
        ("and", [0.2, 0.0, 0.0, 1.0]),
        ("or", [0.2, 0.0, 1.0, 1.0]),
        ("xor", [0.2, 0.0, 1.0, 0.0]),
    ],
)
def test_masks_combine_where_the_second_lies(operation, expected):
    below, above = torch.tensor([[0.2, 0.0, 0.4, 0.9]]), torch.tensor([[0.75, 1.0, 1.0]])
    (made,) = MaskComposite().combine(below, above, 2, 0, operation)
    assert torch.allclose(made[0, 0], torch.tensor(expected))


def test_masks_of_other_batches_are_refused():
    with pytest.raises(WireError, match="source holds 2 masks, destination 3"):
        MaskComposite().combine(picture(3, 2, 2), picture(2, 2, 2), 0, 0, "add")


def test_cropping_and_hardening_a_mask():
    mask = picture(2, 6, 8)
    assert torch.equal(CropMask().crop(mask, 2, 1, 3, 99)[0], mask[:, 1:, 2:5])
    assert torch.equal(ThresholdMask().cut(mask, 0.3)[0], (mask > 0.3).float())


def test_pasting_where_the_mask_says():
    below, above = picture(2, 6, 8, 3), picture(1, 4, 4, 3, seed=1)
    mask = torch.zeros(4, 4)
    mask[:2] = 1
    (made,) = ImageCompositeMasked().paste(below, above, 6, 1, False, mask)
    expected = below.clone()
    expected[:, 1:3, 6:] = above[:, :2, :2]
    assert torch.equal(made, expected)
    assert torch.equal(ImageCompositeMasked().paste(below, above, 99, 0, False)[0], below)
    (stretched,) = ImageCompositeMasked().paste(below, torch.full((1, 1, 1, 3), 0.5), 0, 0, True)
    assert torch.allclose(stretched, torch.tensor(0.5))


def test_room_to_paint():
    image = picture(1, 20, 30, 3)
    padded, mask = ImagePadForOutpaint().pad(image, 8, 0, 0, 16, feathering=4)
    assert padded.shape == (1, 36, 38, 3) and mask.shape == (1, 36, 38)
    assert torch.equal(padded[:, :20, 8:], image)
    assert (padded[:, 20:] == 0.5).all() and (padded[:, :, :8] == 0.5).all()
    assert (mask[:, 20:] == 1).all() and (mask[:, :, :8] == 1).all()
    assert mask[0, 0, 8:14].tolist() == [1, 0.5625, 0.25, 0.0625, 0, 0]  # ((4 - distance) / 4)²
    assert not mask[0, :16, 14:].any()  # not at the edges that nothing was added to


def test_limits_of_a_text():
    text = [[picture(1, 3, 4), {"strength": 0.3, "kept": 1}]]
    ((states, options),) = ConditioningSetArea().limit(text, 64, 128, 8, 16, 0.5)[0]
    assert states is text[0][0] and options["area"] == (16, 8, 2, 1)
    assert (options["strength"], options["kept"], options["set_area_to_bounds"]) == (0.5, 1, False)
    (share,) = ConditioningSetAreaPercentage().limit(text, 0.5, 1.0, 0.25, 0.0, 2.0)
    assert share[0][1]["area"] == ("percentage", 1.0, 0.5, 0.0, 0.25)
    assert ConditioningSetAreaStrength().weigh(text, 2.0)[0][0][1]["strength"] == 2.0
    (masked,) = ConditioningSetMask().limit(text, picture(5, 6), 0.7, "mask bounds")
    assert masked[0][1]["mask"].shape == (1, 5, 6)
    assert (masked[0][1]["mask_strength"], masked[0][1]["set_area_to_bounds"]) == (0.7, True)
    assert text[0][1] == {"strength": 0.3, "kept": 1}
