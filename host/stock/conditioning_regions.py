"""Where in the picture a text counts, and how strongly: options beside its states."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from ...nodes.text import Conditioning
from .conditioning import CATEGORY, socket
from .image_tools import LARGEST

STEP = 8  # an area counts in eighths, whatever the latent is: Stable Diffusion's pixels a cell


def _strength() -> tuple[str, dict[str, Any]]:
    limits = {"default": 1.0, "min": 0.0, "max": 10.0, "step": 0.01}
    return ("FLOAT", {**limits, "tooltip": "How strongly this text counts beside the others."})


def _with(conditioning: Conditioning, **options: Any) -> Conditioning:
    return [[states, {**own, **options}] for states, own in conditioning]


class ConditioningSetArea:
    DESCRIPTION = "Limits a text to a rectangle of the picture, for samplers that read several."
    SEARCH_ALIASES: ClassVar[list[str]] = [
        "regional prompt",
        "area prompt",
        "spatial conditioning",
        "localized prompt",
    ]
    CATEGORY = CATEGORY
    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "limit"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        def pixels(smallest: int, tooltip: str) -> tuple[str, dict[str, Any]]:
            limits = {"default": smallest, "min": smallest, "max": LARGEST, "step": STEP}
            return ("INT", {**limits, "tooltip": tooltip})

        return {
            "required": {
                "conditioning": socket("The text to limit."),
                "width": pixels(64, "Width of the rectangle in pixels."),
                "height": pixels(64, "Height of the rectangle in pixels."),
                "x": pixels(0, "Pixels from the left edge to the rectangle."),
                "y": pixels(0, "Pixels from the top edge to the rectangle."),
                "strength": _strength(),
            }
        }

    def limit(
        self,
        conditioning: Conditioning,
        width: int,
        height: int,
        x: int,
        y: int,
        strength: float,
    ) -> tuple[Conditioning]:
        area = tuple(pixels // STEP for pixels in (height, width, y, x))
        return (_with(conditioning, area=area, strength=strength, set_area_to_bounds=False),)


class ConditioningSetAreaPercentage:
    DESCRIPTION = "Limits a text to a rectangle, given as shares of the picture's sides."
    CATEGORY = CATEGORY
    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "limit"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        def share(default: float, tooltip: str) -> tuple[str, dict[str, Any]]:
            limits = {"default": default, "min": 0.0, "max": 1.0, "step": 0.01}
            return ("FLOAT", {**limits, "tooltip": tooltip})

        return {
            "required": {
                "conditioning": socket("The text to limit."),
                "width": share(1.0, "Width of the rectangle: 1 is the whole picture."),
                "height": share(1.0, "Height of the rectangle: 1 is the whole picture."),
                "x": share(0.0, "From the left edge to the rectangle; 0.5 is the middle."),
                "y": share(0.0, "From the top edge to the rectangle; 0.5 is the middle."),
                "strength": _strength(),
            }
        }

    def limit(
        self,
        conditioning: Conditioning,
        width: float,
        height: float,
        x: float,
        y: float,
        strength: float,
    ) -> tuple[Conditioning]:
        area = ("percentage", height, width, y, x)
        return (_with(conditioning, area=area, strength=strength, set_area_to_bounds=False),)


class ConditioningSetAreaStrength:
    DESCRIPTION = "Sets how strongly a text counts beside the others, wherever it counts."
    CATEGORY = CATEGORY
    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "weigh"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "conditioning": socket("The text to weigh."),
                "strength": _strength(),
            }
        }

    def weigh(self, conditioning: Conditioning, strength: float) -> tuple[Conditioning]:
        return (_with(conditioning, strength=strength),)


class ConditioningSetMask:
    DESCRIPTION = "Limits a text to the part of the picture that a mask selects."
    SEARCH_ALIASES: ClassVar[list[str]] = [
        "masked prompt",
        "regional inpaint conditioning",
        "mask conditioning",
    ]
    CATEGORY = CATEGORY
    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "limit"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        bounds = (
            "default has the model see the whole picture, mask bounds only the mask's rectangle, "
            "where a sampler can."
        )
        return {
            "required": {
                "conditioning": socket("The text to limit."),
                "mask": ("MASK", {"tooltip": "1 where the text counts, 0 where it does not."}),
                "strength": _strength(),
                "set_cond_area": (["default", "mask bounds"], {"tooltip": bounds}),
            }
        }

    def limit(
        self, conditioning: Conditioning, mask: Tensor, strength: float, set_cond_area: str
    ) -> tuple[Conditioning]:
        whole = mask[None] if mask.ndim < 3 else mask
        to_bounds = set_cond_area != "default"
        return (
            _with(conditioning, mask=whole, mask_strength=strength, set_area_to_bounds=to_bounds),
        )


NODES = {
    "ConditioningSetArea": (ConditioningSetArea, "Conditioning (Set Area)"),
    "ConditioningSetAreaPercentage": (
        ConditioningSetAreaPercentage,
        "Conditioning (Set Area with Percentage)",
    ),
    "ConditioningSetAreaStrength": (
        ConditioningSetAreaStrength,
        "Conditioning (Set Area Strength)",
    ),
    "ConditioningSetMask": (ConditioningSetMask, "Conditioning (Set Mask)"),
}
