"""Inputs for the stock nodes, for `test_stock_comfyui`: many settings of each node."""

import itertools
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from comfyui_wuerstchen.host.folders import Folders, HostSurroundings
from comfyui_wuerstchen.host.stock.latents import SaveLatent
from comfyui_wuerstchen.host.stock.scaling import CROPS, METHODS
from comfyui_wuerstchen.nodes.runtime import use

Call = tuple[str, dict[str, Any]]  # node id and inputs


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def picture(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def latent(*shape: int, seed: int = 0, **keys: Any) -> dict[str, Any]:
    return {"samples": draw(*shape, seed=seed), "wuerstchen_size": (300, 200), **keys}


def text(tokens: int, seed: int = 0, batch: int = 1, **options: Any) -> list[Any]:
    return [[draw(batch, tokens, 6, seed=seed), options]]


def write_inputs(folder: Path) -> None:
    """Latents, and pictures whose pixels do not depend on the decoder."""
    (folder / "output").mkdir()
    with use(HostSurroundings(Folders(folder, folder, folder))):
        SaveLatent().save({"samples": draw(2, 4, 3, 3)}, "versioned")
    save_file({"latent_tensor": draw(1, 4, 3, 3)}, folder / "old.latent")
    noise = np.random.default_rng(0).integers(0, 256, (13, 21, 4), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "rgba.png")
    rgb = Image.fromarray(noise[..., :3].copy())
    rgb.save(folder / "rgb.png")
    rgb.save(folder / "rgb.ppm")
    rgb.save(folder / "pages.tiff", save_all=True, append_images=[rgb.rotate(180)])
    rgb.save(folder / "frames.png", save_all=True, append_images=[rgb.rotate(180)])
    exif = rgb.getexif()
    exif[0x0112] = 6
    rgb.save(folder / "turned.png", exif=exif)
    palette = rgb.quantize(32)
    palette.save(folder / "palette.png")
    palette.save(folder / "see-through.png", transparency=3)


PICTURES = [
    *["rgba.png", "rgb.png", "rgb.ppm", "pages.tiff", "frames.png", "turned.png"],
    *["palette.png", "see-through.png"],
]
CHOOSE = random.Random(0)


def grid(node_id: str, **choices: list[Any]) -> Iterator[Call]:
    """Every combination of the choices."""
    for values in itertools.product(*choices.values()):
        yield node_id, dict(zip(choices, values, strict=True))


def some(count: int, make: Callable[[], Call]) -> Iterator[Call]:
    for _ in range(count):
        yield make()


def _scale() -> Call:
    h, w = CHOOSE.randint(1, 40), CHOOSE.randint(1, 40)
    return "ImageScale", {
        "image": picture(2, h, w, 3, seed=h * w),
        "upscale_method": CHOOSE.choice(METHODS),
        "width": CHOOSE.choice([0, CHOOSE.randint(1, 60)]),
        "height": CHOOSE.choice([0, CHOOSE.randint(1, 60)]),
        "crop": CHOOSE.choice(CROPS),
    }


def _scale_by() -> Call:
    return "ImageScaleBy", {
        "image": picture(1, CHOOSE.randint(2, 30), CHOOSE.randint(2, 30), CHOOSE.choice([3, 4])),
        "upscale_method": CHOOSE.choice(METHODS),
        "scale_by": CHOOSE.uniform(0.01, 4),
    }


def _crop() -> Call:
    places = {name: CHOOSE.randint(0, 30) for name in ("x", "y")}
    sizes = {name: CHOOSE.randint(1, 30) for name in ("width", "height")}
    return "ImageCrop", {"image": picture(2, 17, 23, 3), **sizes, **places}


def _images() -> Call:
    def one(seed: int) -> torch.Tensor:
        side = CHOOSE.choice([8, 13, 40])
        return picture(CHOOSE.randint(1, 3), side, 11, CHOOSE.choice([3, 4]), seed=seed)

    return "ImageBatch", {"image1": one(0), "image2": one(1)}


def _two(node_id: str, **more: list[Any]) -> Callable[[], Call]:
    def make() -> Call:
        channels = CHOOSE.choice([4, 16])
        one, other = (
            latent(1, channels, CHOOSE.randint(2, 9), CHOOSE.randint(2, 9), seed=seed)
            for seed in (1, 2)
        )
        chosen = {name: CHOOSE.choice(values) for name, values in more.items()}
        return node_id, {"samples1": one, "samples2": other, **chosen}

    return make


def _composite() -> Call:
    def side() -> int:
        return CHOOSE.randint(1, 12)

    batch = CHOOSE.choice([1, 2])
    return "LatentComposite", {
        "samples_to": latent(batch, 4, side(), side()),
        "samples_from": latent(CHOOSE.choice([1, batch]), 4, side(), side(), seed=1),
        "x": CHOOSE.randint(0, 50),
        "y": CHOOSE.randint(0, 50),
        "feather": CHOOSE.choice([0, 0, 8, 20, 32, 64, 200]),
    }


def _paste() -> Call:
    def side() -> int:
        return CHOOSE.randint(2, 20)

    batch = CHOOSE.choice([1, 2, 3])
    mask = picture(CHOOSE.randint(1, batch), side(), side(), seed=2)
    below = picture(batch, side(), side(), CHOOSE.choice([3, 4]))
    return "ImageCompositeMasked", {
        "destination": below,
        "source": picture(CHOOSE.randint(1, 3), side(), side(), CHOOSE.choice([3, 4]), seed=1),
        # ComfyUI reads a place beyond the edges from the other end.
        "x": CHOOSE.randint(0, below.shape[2] - 1),
        "y": CHOOSE.randint(0, below.shape[1] - 1),
        "resize_source": CHOOSE.random() < 0.3,
        "mask": CHOOSE.choice([None, mask]),
    }


def _pad() -> Call:
    room = {name: CHOOSE.choice([0, 8, 16]) for name in ("left", "top", "right", "bottom")}
    image = picture(CHOOSE.randint(1, 2), CHOOSE.randint(5, 30), CHOOSE.randint(5, 30), 3)
    feathering = CHOOSE.choice([0, 1, 4, 9, 40])
    return "ImagePadForOutpaint", {"image": image, **room, "feathering": feathering}


def _combine_masks() -> Call:
    below = picture(CHOOSE.choice([1, 2]), CHOOSE.randint(3, 12), CHOOSE.randint(3, 12))
    operations = ["multiply", "add", "subtract", "and", "or", "xor"]
    return "MaskComposite", {
        "destination": below,
        "source": picture(1, CHOOSE.randint(1, 12), CHOOSE.randint(1, 12), seed=1),
        "x": CHOOSE.randint(0, below.shape[2] - 1),
        "y": CHOOSE.randint(0, below.shape[1] - 1),
        "operation": CHOOSE.choice(operations),
    }


MASKS = [picture(1, 9, 14), picture(2, 12, 7), picture(8, 8), (picture(1, 20, 20) > 0.9).float()]
BATCHES = [
    latent(5, 4, 3, 2),
    latent(5, 4, 3, 2, batch_index=[3, 4, 7, 8, 0]),
    latent(5, 4, 3, 2, noise_mask=picture(1, 1, 24, 16)),
    latent(5, 4, 3, 2, noise_mask=picture(2, 1, 24, 16)),
    latent(5, 4, 3, 2, noise_mask=picture(5, 1, 24, 16)),
]
TEXTS = [
    text(7),
    text(4, seed=1, pooled_output=draw(1, 5), mask=draw(1, 3, 3)),
    text(9, seed=2, pooled_output=draw(1, 5, seed=3), strength=0.5),
    text(5, seed=4) + text(8, seed=5, pooled_output=draw(1, 5, seed=6)),
    text(5, seed=4, conditioning_lyrics=draw(1, 3), conditioning_scale=draw(1)),
]
ANYTHING = [
    *[None, True, 3, -0.1, "words\n", [], [1, "a", None], {"ä": [1.5, {"b": "ß"}]}],
    draw(3, 4),
    {"samples": draw(1, 2, 2, 2)},
    text(2),
]
SHARES = [0.0, 0.3, 0.5, 1.0]
PROMPT = {"1": {"class_type": "EmptyImage", "inputs": {"width": 6}}}
CALLS: list[Call] = [
    *grid("LoadImage", image=PICTURES),
    *grid("LoadLatent", latent=["versioned_00001_.latent", "old.latent"]),
    *grid(
        "SaveImage",
        images=[picture(2, 5, 6, 3) * 1.4 - 0.2, picture(1, 4, 4, 4)],
        filename_prefix=["plain", "day/%width%x%height%"],
        prompt=[PROMPT],
        extra_pnginfo=[{"workflow": {"nodes": ["ä"]}}],
    ),
    *grid(
        "SaveLatent",
        samples=[latent(2, 16, 3, 3)],
        filename_prefix=["latents/x"],
        prompt=[PROMPT],
        extra_pnginfo=[{"workflow": {"nodes": []}}],
    ),
    *grid("LoadImageMask", image=PICTURES, channel=["alpha", "red", "green", "blue"]),
    *grid("EmptyImage", width=[3], height=[2], batch_size=[1, 4], color=[0, 0x12FE80, 0xFFFFFF]),
    *some(150, _scale),
    *some(60, _scale_by),
    *some(40, _crop),
    *some(40, _images),
    *grid("ImageInvert", image=[picture(2, 3, 4, 3), picture(1, 3, 4, 4)]),
    *grid(
        "RebatchImages",
        images=[[picture(3, 2, 2, 3), picture(4, 2, 2, 3, seed=1)], [picture(1, 5, 2, 3)]],
        batch_size=[[1], [2], [3], [9]],
    ),
    *grid("RebatchImages", images=[[picture(2, 2, 2, 3), picture(2, 3, 3, 3)]], batch_size=[[1]]),
    *grid("MaskToImage", mask=[picture(2, 3, 4), picture(3, 4), picture(2, 1, 3, 4)]),
    *grid(
        "ImageToMask",
        image=[picture(2, 3, 4, 3), picture(2, 3, 4, 4)],
        channel=["red", "green", "blue", "alpha"],
    ),
    *grid("SolidMask", value=[0.0, 0.3, 1.0], width=[5], height=[2]),
    *grid("InvertMask", mask=[picture(2, 3, 4)]),
    *grid("GrowMask", mask=MASKS, expand=[-30, -2, 0, 1, 4], tapered_corners=[True, False]),
    *grid("FeatherMask", mask=MASKS, left=[0, 3], top=[0, 99], right=[0, 5], bottom=[0, 2]),
    *grid("CropMask", mask=MASKS, x=[0, 3], y=[0, 5], width=[2, 50], height=[3, 40]),
    *grid("ThresholdMask", mask=MASKS, value=[0.0, 0.5, 1.0]),
    *some(60, _combine_masks),
    *some(100, _paste),
    *some(30, _pad),
    *grid("LatentFromBatch", samples=BATCHES, batch_index=[-9, -2, 0, 2, 99], length=[1, 3, 64]),
    *grid("RepeatLatentBatch", samples=BATCHES, amount=[1, 2, 3]),
    *grid("LatentBatch", samples1=BATCHES, samples2=[*BATCHES, latent(2, 4, 7, 5)]),
    *grid(
        "LatentAdd",
        samples1=[latent(2, 4, 3, 5), latent(4, 4, 3, 5)],
        samples2=[latent(n, 4, h, 5, seed=1) for n in (1, 2, 3, 6) for h in (3, 8)],
    ),
    *some(20, _two("LatentAdd")),
    *some(20, _two("LatentSubtract")),
    *some(20, _two("LatentBlend", blend_factor=SHARES)),
    *some(20, _two("LatentInterpolate", ratio=SHARES)),
    *grid(
        "LatentBlend",
        samples1=[latent(1, 4, 3, 5), latent(3, 4, 3, 5)],
        samples2=[latent(1, 4, 3, 5, seed=1), latent(3, 4, 9, 5, seed=1)],
        blend_factor=SHARES,
    ),
    *grid(
        "LatentInterpolate",
        samples1=[{"samples": torch.zeros(1, 4, 3, 3)}],
        samples2=[{"samples": torch.zeros(1, 4, 3, 3)}, latent(1, 4, 3, 3)],
        ratio=SHARES,
    ),
    *grid("LatentMultiply", samples=BATCHES, multiplier=[-10.0, 0.0, 0.3]),
    *some(200, _composite),
    *grid("SetLatentNoiseMask", samples=BATCHES, mask=[picture(2, 3, 4), picture(3, 4)]),
    *grid("ConditioningCombine", conditioning_1=TEXTS, conditioning_2=TEXTS),
    *grid("ConditioningConcat", conditioning_to=TEXTS, conditioning_from=TEXTS),
    *grid(
        "ConditioningAverage",
        conditioning_to=TEXTS,
        conditioning_from=TEXTS,
        conditioning_to_strength=SHARES,
    ),
    *grid("ConditioningZeroOut", conditioning=TEXTS),
    *grid("ConditioningSetTimestepRange", conditioning=TEXTS, start=[0.0, 0.25], end=[0.5, 1.0]),
    *grid(
        "ConditioningSetArea",
        conditioning=TEXTS,
        width=[64, 200],
        height=[512],
        x=[0, 24],
        y=[8],
        strength=[0.5],
    ),
    *grid(
        "ConditioningSetAreaPercentage",
        conditioning=TEXTS,
        width=[0.5],
        height=[0.25, 1.0],
        x=[0.0, 0.3],
        y=[0.1],
        strength=[1.0],
    ),
    *grid("ConditioningSetAreaStrength", conditioning=TEXTS, strength=[0.0, 2.5]),
    *grid(
        "ConditioningSetMask",
        conditioning=TEXTS,
        mask=[picture(2, 3, 4), picture(3, 4)],
        strength=[0.5],
        set_cond_area=["default", "mask bounds"],
    ),
    *grid("PreviewAny", source=ANYTHING),
    *grid("PrimitiveInt", value=[-3]),
    *grid("PrimitiveFloat", value=[0.5]),
    *grid("PrimitiveString", value=["a"]),
    *grid("PrimitiveStringMultiline", value=["a\nb"]),
    *grid("PrimitiveBoolean", value=[True, False]),
]
