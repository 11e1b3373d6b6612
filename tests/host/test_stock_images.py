"""The stock nodes on pictures and masks, against the formulas they stand for."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from comfyui_wuerstchen.host.graph_file import graph_from_json
from comfyui_wuerstchen.host.stock import STOCK_DISPLAY_NAMES, STOCK_NODES
from comfyui_wuerstchen.host.stock.image_tools import (
    EmptyImage,
    ImageBatch,
    ImageCrop,
    ImageInvert,
    ImageScale,
    ImageScaleBy,
    RebatchImages,
)
from comfyui_wuerstchen.host.stock.images import LoadImage
from comfyui_wuerstchen.host.stock.masks import (
    ImageToMask,
    InvertMask,
    LoadImageMask,
    MaskToImage,
    SolidMask,
)
from comfyui_wuerstchen.host.stock.scaling import METHODS
from comfyui_wuerstchen.wuerstchen_core.errors import SettingError, WireError


def picture(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def scale(image, width, height, method="bilinear", crop="disabled"):
    return ImageScale().scale(image, method, width, height, crop)[0]


def test_every_stock_node_is_declared_in_full(inside):
    assert STOCK_NODES.keys() == STOCK_DISPLAY_NAMES.keys()
    for node_id, node in STOCK_NODES.items():
        assert node.DESCRIPTION and node.CATEGORY and callable(getattr(node, node.FUNCTION))
        for section in ("required", "optional"):
            for name, (kind, options) in node.INPUT_TYPES().get(section, {}).items():
                assert options.get("tooltip"), (node_id, name)
                if kind in ("INT", "FLOAT") and "default" in options:
                    assert options["min"] <= options["default"] <= options["max"]


def test_an_empty_image_has_its_colour():
    (image,) = EmptyImage().make(3, 2, 4, 0x1280FF)
    assert image.shape == (4, 2, 3, 3)
    assert torch.equal((image * 255).round(), torch.tensor([0x12, 0x80, 0xFF]).expand(4, 2, 3, 3))


@pytest.mark.parametrize("method", [method for method in METHODS if method != "lanczos"])
def test_scaling_is_torchs_own(method):
    image = picture(2, 7, 5, 3)
    expected = F.interpolate(image.movedim(-1, 1), size=(9, 20), mode=method).movedim(1, -1)
    assert torch.equal(scale(image, 20, 9, method), expected)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_lanczos_keeps_flat_colours_and_channels(channels):
    image = torch.tensor([0.2, 0.4, 0.6, 1.0])[:channels].expand(2, 6, 8, channels)
    result = scale(image, 5, 9, "lanczos")
    assert result.shape == (2, 9, 5, channels)
    assert torch.equal(result * 255, (image[:, :1, :1] * 255).floor().expand_as(result))


@pytest.mark.parametrize(
    ("old", "new", "kept"),  # sizes as (height, width); kept as (top, left)
    [((10, 30), (5, 5), (0, 10)), ((31, 10), (8, 8), (10, 0)), ((6, 9), (4, 6), (0, 0))],
)
def test_center_cuts_what_does_not_fit(old, new, kept):
    image = picture(1, *old, 3)
    top, left = kept
    middle = image[:, top : old[0] - top, left : old[1] - left]
    assert torch.equal(scale(image, new[1], new[0], crop="center"), scale(middle, new[1], new[0]))


def test_a_side_of_zero_follows_the_other():
    image = picture(1, 20, 30, 3)
    assert scale(image, 15, 0).shape == (1, 10, 15, 3)
    assert scale(image, 0, 40).shape == (1, 40, 60, 3)
    assert scale(picture(1, 1, 90, 3), 9, 0).shape == (1, 1, 9, 3)
    assert scale(image, 0, 0) is image


def test_scaling_by_a_factor():
    image = picture(1, 5, 7, 3)
    (result,) = ImageScaleBy().scale(image, "area", 1.5)
    assert torch.equal(result, scale(image, 10, 8, "area"))


def test_nothing_left_is_said():
    with pytest.raises(SettingError, match="0×0; make each side at least 1"):
        ImageScaleBy().scale(picture(1, 4, 4, 3), "area", 0.01)
    with pytest.raises(SettingError, match="nothing is left"):
        scale(picture(1, 1, 100, 3), 1, 100, crop="center")


def test_a_batch_has_the_size_and_the_opacity_of_the_first():
    first, second = picture(2, 4, 6, 4), picture(1, 8, 20, 3, seed=1)
    (both,) = ImageBatch().join(first, second)
    assert both.shape == (3, 4, 6, 4) and torch.equal(both[:2], first)
    assert torch.equal(both[2:, ..., :3], scale(second, 6, 4, crop="center"))
    assert torch.equal(both[2:, ..., 3], torch.ones(1, 4, 6))
    with pytest.raises(WireError, match="1 channels, the other 3"):
        ImageBatch().join(first[..., :3], second[..., :1])


def test_inverting():
    image = picture(1, 2, 3, 3)
    assert torch.equal(ImageInvert().invert(image)[0], 1 - image)
    assert torch.equal(InvertMask().invert(image[..., 0])[0], 1 - image[..., 0])


@pytest.mark.parametrize(
    ("rectangle", "expected"),  # as width, height, x, y
    [
        ((3, 2, 1, 4), (slice(4, 6), slice(1, 4))),
        ((99, 99, 2, 3), (slice(3, 6), slice(2, 8))),
        ((5, 5, 99, 99), (slice(5, 6), slice(7, 8))),
    ],
)
def test_a_crop_stays_inside(rectangle, expected):
    image = picture(2, 6, 8, 3)
    rows, columns = expected
    assert torch.equal(ImageCrop().crop(image, *rectangle)[0], image[:, rows, columns])


def test_rebatching():
    images = [picture(3, 2, 2, 3), picture(4, 2, 2, 3, seed=1)]
    (batches,) = RebatchImages().rebatch(images, [3])
    assert [len(batch) for batch in batches] == [3, 3, 1]
    assert torch.equal(torch.cat(batches), torch.cat(images))


def test_rebatching_different_sizes():
    images = [picture(2, 2, 2, 3), picture(1, 5, 4, 3)]
    assert [len(one) for one in RebatchImages().rebatch(images, [1])[0]] == [1, 1, 1]
    with pytest.raises(WireError, match="2×2×3 and 4×5×3; resize them first"):
        RebatchImages().rebatch(images, [3])


def test_rebatching_in_a_graph_maps_what_follows(run, nodes):
    prompt = {
        "1": ("EmptyImage", {"width": 2, "height": 2, "batch_size": 5, "color": 255}),
        "2": ("RebatchImages", {"images": ["1", 0], "batch_size": 2}),
        "3": ("ImageInvert", {"image": ["2", 0]}),
        "4": ("PreviewImage", {"images": ["3", 0]}),
    }
    result, events = run(prompt)
    assert result.status == "success", result
    (shown,) = [data["output"]["images"] for kind, data in events if kind == "executed"]
    assert len(shown) == 5


def test_masks_and_pictures():
    image = picture(2, 3, 4, 4)
    for index, channel in enumerate(("red", "green", "blue", "alpha")):
        assert torch.equal(ImageToMask().convert(image, channel)[0], image[..., index])
    with pytest.raises(WireError, match="3 channels and so no alpha"):
        ImageToMask().convert(image[..., :3], "alpha")
    (grey,) = MaskToImage().convert(image[..., 0])
    assert torch.equal(grey, image[..., :1].expand(-1, -1, -1, 3))
    assert MaskToImage().convert(image[0, ..., 0])[0].shape == (1, 3, 4, 3)
    assert torch.equal(SolidMask().make(0.25, 5, 2)[0], torch.full((1, 2, 5), 0.25))


@pytest.fixture
def painted(inside):
    """A picture with every channel and see-through places, in the input folder."""
    levels = np.random.default_rng(0).integers(0, 256, (5, 7, 4), dtype=np.uint8)
    Image.fromarray(levels).save(inside.input / "a.png")
    return torch.from_numpy(levels / np.float32(255))


@pytest.mark.parametrize("channel", ["red", "green", "blue", "alpha"])
def test_a_channel_of_a_file_as_mask(painted, channel):
    (mask,) = LoadImageMask().load_mask("a.png", channel)
    index = ("red", "green", "blue", "alpha").index(channel)
    expected = 1 - painted[..., 3] if channel == "alpha" else painted[..., index]
    assert torch.equal(mask, expected[None])


def test_a_mask_of_a_file_in_a_graph(painted, run):
    prompt = {
        "1": ("LoadImageMask", {"image": "a.png", "channel": "green"}),
        "2": ("MaskToImage", {"mask": ["1", 0]}),
        "3": ("PreviewImage", {"images": ["2", 0]}),
    }
    for cached in ([], ["1", "2", "3"]):
        result, events = run(prompt)
        assert result.status == "success", result
        found = [data["nodes"] for kind, data in events if kind == "execution_cached"]
        assert [sorted(one) for one in found] == [cached]


def test_a_palette_gives_a_mask_of_its_own_size(inside):
    palette = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4)).convert("P")
    palette.save(inside.input / "a.png")
    assert torch.equal(LoadImage().load_image("a.png")[1], torch.zeros(1, 3, 4))


@pytest.mark.parametrize("opacity", [(0, 255), (255, 255)])
def test_frames_with_and_without_transparency(inside, opacity):
    frames = [Image.new("RGBA", (4, 3), (200, 0, i, alpha)) for i, alpha in enumerate(opacity)]
    frames[0].save(inside.input / "a.gif", save_all=True, append_images=frames[1:], duration=40)
    image, mask = LoadImage().load_image("a.gif")
    assert len(image) == 2
    assert torch.equal(mask, 1 - torch.tensor(opacity).reshape(2, 1, 1).expand(2, 3, 4) / 255)


def test_further_pages_are_no_batch(inside):
    pages = [Image.new("RGB", (4, 4), colour) for colour in ("red", "green")]
    pages[0].save(inside.input / "a.tiff", save_all=True, append_images=pages[1:])
    image, _ = LoadImage().load_image("a.tiff")
    assert torch.equal(image, torch.tensor([1.0, 0.0, 0.0]).expand(1, 4, 4, 3))


def test_saved_widget_values_find_their_inputs(nodes):
    node = {
        "id": 1,
        "type": "ImageScale",
        "inputs": [{"name": "image", "type": "IMAGE", "link": None}],
        "outputs": [],
        "widgets_values": ["lanczos", 640, 0, "center"],
    }
    graph = {"version": 0.4, "nodes": [node], "links": []}
    assert graph_from_json(graph, "test", nodes).prompt["1"]["inputs"] == {
        "upscale_method": "lanczos",
        "width": 640,
        "height": 0,
        "crop": "center",
    }
