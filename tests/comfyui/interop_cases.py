"""Stock nodes that a value of ours goes through: their inputs, with `X` for the value."""

from __future__ import annotations

from typing import Any, NamedTuple

X, Y = "the value", "another one of the same kind"


class Case(NamedTuple):
    """`size` of the picture at the end (width, height) where it is not 128×128, and how many."""

    node: str
    inputs: dict[str, Any]
    size: tuple[int, int] = (128, 128)
    count: int = 1


_ON_BOTH_STAGES = [
    Case("LatentFlip", {"samples": X, "flip_method": "y-axis: horizontally"}),
    Case("LatentRotate", {"samples": X, "rotation": "90 degrees"}),
    Case("LatentBlend", {"samples1": X, "samples2": Y, "blend_factor": 0.5}),
    Case("LatentInterpolate", {"samples1": X, "samples2": Y, "ratio": 0.5}),
    Case("LatentAdd", {"samples1": X, "samples2": Y}),
    Case("LatentSubtract", {"samples1": X, "samples2": Y}),
    Case("LatentMultiply", {"samples": X, "multiplier": 0.9}),
    Case("LatentComposite", {"samples_to": X, "samples_from": Y, "x": 8, "y": 8, "feather": 0}),
    Case(
        "LatentCompositeMasked",
        {"destination": X, "source": Y, "x": 8, "y": 8, "resize_source": False},
    ),
    Case("LatentBatch", {"samples1": X, "samples2": Y}, count=2),
    Case("RepeatLatentBatch", {"samples": X, "amount": 2}, count=2),
    Case("LatentFromBatch", {"samples": X, "batch_index": 0, "length": 1}),
    Case("RebatchLatents", {"latents": X, "batch_size": 1}),
    Case("LatentBatchSeedBehavior", {"samples": X, "seed_behavior": "fixed"}),
]

# Cells of a picture of 128×128: Stage C has 3×3 of them, Stage B 32×32; stock nodes count in
# pixels of 1/8 cell.
STAGE_C = [
    *_ON_BOTH_STAGES,
    Case(
        "LatentUpscaleBy",
        {"samples": X, "upscale_method": "bicubic", "scale_by": 2.0},
        size=(256, 256),
    ),
    Case(
        "LatentUpscale",
        {
            "samples": X,
            "upscale_method": "nearest-exact",
            "width": 96,
            "height": 72,
            "crop": "disabled",
        },
        size=(512, 384),
    ),
]
STAGE_B = [
    *_ON_BOTH_STAGES,
    Case("LatentCrop", {"samples": X, "width": 128, "height": 64, "x": 0, "y": 0}, size=(64, 32)),
    Case(
        "LatentUpscale",
        {
            "samples": X,
            "upscale_method": "bislerp",
            "width": 512,
            "height": 256,
            "crop": "center",
        },
        size=(256, 128),
    ),
]

CONDITIONINGS = [
    Case(
        "ConditioningAverage",
        {"conditioning_to": X, "conditioning_from": Y, **{"conditioning_to_strength": 0.7}},
    ),
    Case("ConditioningConcat", {"conditioning_to": X, "conditioning_from": Y}),
    Case("ConditioningZeroOut", {"conditioning": X}),
    Case("ConditioningSetTimestepRange", {"conditioning": X, "start": 0.0, "end": 1.0}),
    Case("StableCascade_StageB_Conditioning", {"conditioning": X, "stage_c": ["size", 0]}),
]

IMAGES = [
    Case("ImageInvert", {"image": X}),
    Case("ImageScaleBy", {"image": X, "upscale_method": "lanczos", "scale_by": 0.75}, (96, 96)),
    Case(
        "ImageScale",
        {"image": X, "upscale_method": "area", "width": 200, "height": 130, "crop": "center"},
        (200, 130),
    ),
    Case("ImageCrop", {"image": X, "width": 100, "height": 70, "x": 4, "y": 8}, (100, 70)),
    Case("ImageBatch", {"image1": X, "image2": Y}, count=2),
    Case("RepeatImageBatch", {"image": X, "amount": 2}, count=2),
    Case("ImageFromBatch", {"image": X, "batch_index": 0, "length": 1}),
    Case("RebatchImages", {"images": X, "batch_size": 1}),
    Case("ImageBlend", {"image1": X, "image2": Y, "blend_factor": 0.5, "blend_mode": "screen"}),
    Case("ImageBlur", {"image": X, "blur_radius": 3, "sigma": 1.0}),
    Case("ImageSharpen", {"image": X, "sharpen_radius": 1, "sigma": 1.0, "alpha": 0.5}),
    Case("ImageQuantize", {"image": X, "colors": 8, "dither": "none"}),
    Case(
        "ImageCompositeMasked",
        {"destination": X, "source": Y, "x": 16, "y": 16, "resize_source": False},
    ),
    Case(
        "ImagePadForOutpaint",
        {"image": X, "left": 32, "top": 0, "right": 0, "bottom": 16, "feathering": 8},
        (160, 144),
    ),
]
