"""Making, resizing, cutting and batching pictures. All are B×H×W×C in [0, 1]."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ...wuerstchen_core.errors import WireError
from .scaling import CROPS, METHODS, resize

LARGEST = 16384  # pixels a side, ComfyUI's limit


def side(tooltip: str, default: int = 512, smallest: int = 1) -> tuple[str, dict[str, Any]]:
    """A whole number of pixels."""
    limits = {"default": default, "min": smallest, "max": LARGEST, "step": 1}
    return ("INT", {**limits, "tooltip": tooltip})


def _method() -> tuple[list[str], dict[str, Any]]:
    tooltip = (
        "How new pixels are found: nearest-exact copies, area averages (best for shrinking), "
        "bilinear and bicubic blend, lanczos is sharpest and works in 8 bits."
    )
    return (METHODS, {"tooltip": tooltip})


class EmptyImage:
    DESCRIPTION = "Makes pictures of one colour."
    CATEGORY = "image"
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "make"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        batch = {"default": 1, "min": 1, "max": 4096, "tooltip": "How many pictures to make."}
        color = {"default": 0, "min": 0, "max": 0xFFFFFF, "step": 1, "display": "color"}
        return {
            "required": {
                "width": side("Width in pixels."),
                "height": side("Height in pixels."),
                "batch_size": ("INT", batch),
                "color": ("INT", {**color, "tooltip": "The colour as 0xRRGGBB; 0 is black."}),
            }
        }

    def make(self, width: int, height: int, batch_size: int = 1, color: int = 0) -> tuple[Tensor]:
        rgb = torch.tensor([(color >> shift & 0xFF) / 0xFF for shift in (16, 8, 0)])
        return (rgb.repeat(batch_size, height, width, 1),)


class ImageScale:
    DESCRIPTION = "Resizes pictures to a width and a height."
    SEARCH_ALIASES: ClassVar[list[str]] = [
        "resize",
        "resize image",
        "scale image",
        "image resize",
        "zoom",
        "zoom in",
        "change size",
    ]
    ESSENTIALS_CATEGORY = "Image Tools"
    CATEGORY = "image/upscaling"
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "scale"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        crop = "center cuts away what does not fit the new shape; disabled stretches instead."
        return {
            "required": {
                "image": ("IMAGE", {"tooltip": "The pictures to resize."}),
                "upscale_method": _method(),
                "width": side("New width in pixels; 0 follows the height.", smallest=0),
                "height": side("New height in pixels; 0 follows the width.", smallest=0),
                "crop": (CROPS, {"tooltip": crop}),
            }
        }

    def scale(
        self, image: Tensor, upscale_method: str, width: int, height: int, crop: str
    ) -> tuple[Tensor]:
        if width == height == 0:
            return (image,)
        old_height, old_width = image.shape[1:3]
        width = width or max(1, round(old_width * height / old_height))
        height = height or max(1, round(old_height * width / old_width))
        return (_resized(image, width, height, upscale_method, crop),)


class ImageScaleBy:
    DESCRIPTION = "Resizes pictures by a factor, the same for both sides."
    ESSENTIALS_CATEGORY = "Image Tools"
    CATEGORY = "image/upscaling"
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "scale"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        factor = {"default": 1.0, "min": 0.01, "max": 8.0, "step": 0.01}
        return {
            "required": {
                "image": ("IMAGE", {"tooltip": "The pictures to resize."}),
                "upscale_method": _method(),
                "scale_by": ("FLOAT", {**factor, "tooltip": "2 doubles each side, 0.5 halves it."}),
            }
        }

    def scale(self, image: Tensor, upscale_method: str, scale_by: float) -> tuple[Tensor]:
        width, height = round(image.shape[2] * scale_by), round(image.shape[1] * scale_by)
        return (_resized(image, width, height, upscale_method, "disabled"),)


def _resized(image: Tensor, width: int, height: int, method: str, crop: str) -> Tensor:
    return resize(image.movedim(-1, 1), width, height, method, crop).movedim(1, -1)


class ImageBatch:
    DESCRIPTION = "Joins two batches of pictures; the second is brought to the size of the first."
    SEARCH_ALIASES: ClassVar[list[str]] = ["combine images", "merge images", "stack images"]
    CATEGORY = "image/batch"
    DEPRECATED = True
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "join"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image1": ("IMAGE", {"tooltip": "The first pictures; they give the size."}),
                "image2": (
                    "IMAGE",
                    {"tooltip": "The pictures after them, cut at the middle and resized to fit."},
                ),
            }
        }

    def join(self, image1: Tensor, image2: Tensor) -> tuple[Tensor]:
        channels = max(image1.shape[-1], image2.shape[-1])
        first, second = opaque(image1, channels), opaque(image2, channels)
        if first.shape[1:] != second.shape[1:]:
            second = _resized(second, first.shape[2], first.shape[1], "bilinear", "center")
        return (torch.cat([first, second]),)


def opaque(image: Tensor, channels: int) -> Tensor:
    """The picture with this many channels, where it may lack the last, the opacity."""
    missing = channels - image.shape[-1]
    if missing > 1:
        raise WireError(
            f"one picture has {image.shape[-1]} channels, the other {channels}; give both the "
            "same number, with or without an alpha channel."
        )
    return F.pad(image, (0, missing), value=1.0)


class ImageInvert:
    DESCRIPTION = "Turns each colour into its opposite."
    SEARCH_ALIASES: ClassVar[list[str]] = ["reverse colors"]
    ESSENTIALS_CATEGORY = "Image Tools"
    CATEGORY = "image/color"
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "invert"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": ("IMAGE", {"tooltip": "The pictures to invert."})}}

    def invert(self, image: Tensor) -> tuple[Tensor]:
        return (1.0 - image,)


class ImageCrop:
    DESCRIPTION = "Cuts a rectangle out of pictures; what lies outside of them is left out."
    SEARCH_ALIASES: ClassVar[list[str]] = ["trim"]
    ESSENTIALS_CATEGORY = "Image Tools"
    CATEGORY = "image/transform"
    DEPRECATED = True
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "crop"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE", {"tooltip": "The pictures to cut."}),
                "width": side("Width of the rectangle in pixels."),
                "height": side("Height of the rectangle in pixels."),
                "x": side("Pixels from the left edge to the rectangle.", default=0, smallest=0),
                "y": side("Pixels from the top edge to the rectangle.", default=0, smallest=0),
            }
        }

    def crop(self, image: Tensor, width: int, height: int, x: int, y: int) -> tuple[Tensor]:
        x, y = min(x, image.shape[2] - 1), min(y, image.shape[1] - 1)
        return (image[:, y : y + height, x : x + width],)


class RebatchImages:
    DESCRIPTION = "Takes lists of batches apart and makes batches of one size from them."
    CATEGORY = "image/batch"
    INPUT_IS_LIST = True
    OUTPUT_IS_LIST = (True,)
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "rebatch"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        batch = {"default": 1, "min": 1, "max": 4096}
        tooltip = "How many pictures a batch has; the last one may have fewer."
        return {
            "required": {
                "images": ("IMAGE", {"tooltip": "Pictures, in batches of any sizes."}),
                "batch_size": ("INT", {**batch, "tooltip": tooltip}),
            }
        }

    def rebatch(self, images: list[Tensor], batch_size: list[int]) -> tuple[list[Tensor]]:
        singles = [one for batch in images for one in batch.split(1)]
        size = batch_size[0]
        groups = [singles[start : start + size] for start in range(0, len(singles), size)]
        return ([_joined(group) for group in groups],)


def _joined(pictures: list[Tensor]) -> Tensor:
    sizes = sorted({f"{one.shape[2]}×{one.shape[1]}×{one.shape[3]}" for one in pictures})
    if len(sizes) > 1:
        raise WireError(
            f"one batch would hold pictures of the sizes {' and '.join(sizes)}; resize them "
            "first, or set batch_size to 1."
        )
    return torch.cat(pictures)


NODES = {
    "EmptyImage": (EmptyImage, "Empty Image"),
    "ImageScale": (ImageScale, "Upscale Image"),
    "ImageScaleBy": (ImageScaleBy, "Upscale Image By"),
    "ImageBatch": (ImageBatch, "Batch Images (DEPRECATED)"),
    "ImageInvert": (ImageInvert, "Invert Image Colors"),
    "ImageCrop": (ImageCrop, "Crop Image (DEPRECATED)"),
    "RebatchImages": (RebatchImages, "Rebatch Images"),
}
