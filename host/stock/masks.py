"""Masks: B×H×W in [0, 1], made, read from pictures and turned into them."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from ...wuerstchen_core.errors import WireError
from .image_tools import side
from .images import LoadImage

COLORS = ["red", "green", "blue"]


class LoadImageMask(LoadImage):
    DESCRIPTION = "Loads one channel of a picture in the input folder as a mask."
    SEARCH_ALIASES: ClassVar[list[str]] = ["import mask", "alpha mask", "channel mask"]
    ESSENTIALS_CATEGORY = "Image Tools"
    RETURN_TYPES = ("MASK",)
    FUNCTION = "load_mask"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        tooltip = "alpha gives 1 where the picture is transparent; a colour gives its brightness."
        channel = (["alpha", *COLORS], {"tooltip": tooltip})
        return {"required": {**super().INPUT_TYPES()["required"], "channel": channel}}

    def load_mask(self, image: str, channel: str) -> tuple[Tensor]:
        picture, transparency = self.load_image(image)
        if channel == "alpha":
            return (transparency,)
        return (picture[..., COLORS.index(channel)].clone(),)

    @classmethod
    def IS_CHANGED(cls, image: str, channel: str) -> str:
        return super().IS_CHANGED(image)


class MaskToImage:
    DESCRIPTION = "Shows a mask as a grey picture."
    SEARCH_ALIASES: ClassVar[list[str]] = ["convert mask"]
    CATEGORY = "image/mask"
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "convert"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"mask": ("MASK", {"tooltip": "1 becomes white, 0 black."})}}

    def convert(self, mask: Tensor) -> tuple[Tensor]:
        return (mask.reshape(-1, *mask.shape[-2:], 1).expand(-1, -1, -1, 3),)


class ImageToMask:
    DESCRIPTION = "Takes one channel of pictures as a mask."
    SEARCH_ALIASES: ClassVar[list[str]] = ["extract channel", "channel to mask"]
    CATEGORY = "image/mask"
    RETURN_TYPES = ("MASK",)
    FUNCTION = "convert"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        tooltip = "Which channel; alpha only where the picture has one."
        channel = {"options": [*COLORS, "alpha"], "multiselect": False, "tooltip": tooltip}
        return {
            "required": {
                "image": ("IMAGE", {"tooltip": "The pictures to read."}),
                "channel": ("COMBO", channel),
            }
        }

    def convert(self, image: Tensor, channel: str) -> tuple[Tensor]:
        index = [*COLORS, "alpha"].index(channel)
        if index >= image.shape[-1]:
            raise WireError(
                f"this picture has {image.shape[-1]} channels and so no {channel}; choose another "
                "channel."
            )
        return (image[..., index],)


class SolidMask:
    DESCRIPTION = "Makes a mask with one value everywhere."
    CATEGORY = "image/mask"
    RETURN_TYPES = ("MASK",)
    FUNCTION = "make"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        value = {"default": 1.0, "min": 0.0, "max": 1.0, "step": 0.01}
        return {
            "required": {
                "value": ("FLOAT", {**value, "tooltip": "1 selects everything, 0 nothing."}),
                "width": side("Width in pixels."),
                "height": side("Height in pixels."),
            }
        }

    def make(self, value: float, width: int, height: int) -> tuple[Tensor]:
        return (torch.full((1, height, width), float(value)),)


class InvertMask:
    DESCRIPTION = "Swaps what a mask selects and what it leaves out."
    SEARCH_ALIASES: ClassVar[list[str]] = ["reverse mask", "flip mask"]
    CATEGORY = "image/mask"
    RETURN_TYPES = ("MASK",)
    FUNCTION = "invert"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"mask": ("MASK", {"tooltip": "The mask to invert."})}}

    def invert(self, mask: Tensor) -> tuple[Tensor]:
        return (1.0 - mask,)


NODES = {
    "LoadImageMask": (LoadImageMask, "Load Image (as Mask)"),
    "MaskToImage": (MaskToImage, "Convert Mask to Image"),
    "ImageToMask": (ImageToMask, "Convert Image to Mask"),
    "SolidMask": (SolidMask, "Create Solid Mask"),
    "InvertMask": (InvertMask, "Invert Mask"),
}
