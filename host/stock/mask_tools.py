"""Reshaping masks: B×H×W in [0, 1], or one H×W."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ...nodes.runtime import surroundings
from ...wuerstchen_core.errors import WireError
from .image_tools import LARGEST, side

CATEGORY = "image/mask"


def _batch(mask: Tensor) -> Tensor:
    return mask.reshape(-1, *mask.shape[-2:])


class GrowMask:
    DESCRIPTION = "Makes what a mask selects larger, or smaller."
    SEARCH_ALIASES: ClassVar[list[str]] = ["expand mask", "shrink mask"]
    CATEGORY = CATEGORY
    RETURN_TYPES = ("MASK",)
    FUNCTION = "grow"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        expand = {"default": 0, "min": -LARGEST, "max": LARGEST, "step": 1}
        corners = {"default": True, "advanced": True, "tooltip": "Grow diagonally at half speed."}
        return {
            "required": {
                "mask": ("MASK", {"tooltip": "The mask to change."}),
                "expand": ("INT", {**expand, "tooltip": "Pixels to add; below 0 to take away."}),
                "tapered_corners": ("BOOLEAN", corners),
            }
        }

    def grow(self, mask: Tensor, expand: int, tapered_corners: bool) -> tuple[Tensor]:
        sign = -1 if expand < 0 else 1  # to shrink a mask is to grow what it leaves out
        grown = _batch(mask) * sign
        shapes = [(3, 1), (1, 3)] if tapered_corners else [(3, 3)]
        for _ in range(min(abs(expand), sum(grown.shape[-2:]))):  # then all of it is reached
            surroundings().check_cancelled()
            steps = [
                F.max_pool2d(grown, shape, stride=1, padding=(shape[0] // 2, shape[1] // 2))
                for shape in shapes
            ]
            grown = torch.stack(steps).amax(0)
        return (grown * sign,)


class FeatherMask:
    DESCRIPTION = "Fades a mask out towards the edges of the picture."
    SEARCH_ALIASES: ClassVar[list[str]] = [
        "soft edge mask",
        "blur mask edges",
        "gradient mask edge",
    ]
    CATEGORY = CATEGORY
    RETURN_TYPES = ("MASK",)
    FUNCTION = "feather"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        def edge(name: str) -> tuple[str, dict[str, Any]]:
            return side(f"Pixels over which it fades at the {name}.", default=0, smallest=0)

        return {
            "required": {
                "mask": ("MASK", {"tooltip": "The mask to fade."}),
                "left": edge("left"),
                "top": edge("top"),
                "right": edge("right"),
                "bottom": edge("bottom"),
            }
        }

    def feather(self, mask: Tensor, left: int, top: int, right: int, bottom: int) -> tuple[Tensor]:
        masks = _batch(mask)
        height, width = masks.shape[-2:]
        rows = _rising(height, top) * _rising(height, bottom).flip(0)
        columns = _rising(width, left) * _rising(width, right).flip(0)
        return (masks * rows[:, None] * columns,)


def _rising(length: int, over: int) -> Tensor:
    """1, but for the first `over` places, which rise to it."""
    places = torch.arange(1, length + 1, dtype=torch.float32)
    return (places / max(1, min(over, length))).clamp(max=1)


def _both(choose: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """`choose` on what two masks select: more than half."""
    return lambda below, above: choose(below.round().bool(), above.round().bool()).float()


OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "multiply": torch.mul,
    "add": torch.add,
    "subtract": torch.sub,
    "and": _both(torch.logical_and),
    "or": _both(torch.logical_or),
    "xor": _both(torch.logical_xor),
}


class MaskComposite:
    DESCRIPTION = "Combines two masks."
    SEARCH_ALIASES: ClassVar[list[str]] = [
        "combine masks",
        "blend masks",
        "layer masks",
        "masks composition",
    ]
    CATEGORY = CATEGORY
    RETURN_TYPES = ("MASK",)
    FUNCTION = "combine"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        how = "What becomes of both; and, or, xor take more than half for selected."
        operation = {"options": list(OPERATIONS), "multiselect": False, "tooltip": how}
        return {
            "required": {
                "destination": ("MASK", {"tooltip": "The mask below; it gives the size."}),
                "source": ("MASK", {"tooltip": "The mask to put over it."}),
                "x": side("Where the source's left edge goes.", default=0, smallest=0),
                "y": side("Where the source's top edge goes.", default=0, smallest=0),
                "operation": ("COMBO", operation),
            }
        }

    def combine(
        self, destination: Tensor, source: Tensor, x: int, y: int, operation: str
    ) -> tuple[Tensor]:
        result, above = _batch(destination).clone(), _batch(source)
        if len(above) not in (1, len(result)):
            raise WireError(
                f"source holds {len(above)} masks, destination {len(result)}; give one mask, or "
                "as many."
            )
        window = result[:, y : y + above.shape[-2], x : x + above.shape[-1]]
        window.copy_(OPERATIONS[operation](window, above[:, : window.shape[1], : window.shape[2]]))
        return (result.clamp_(0, 1),)


class CropMask:
    DESCRIPTION = "Cuts a rectangle out of a mask."
    SEARCH_ALIASES: ClassVar[list[str]] = ["cut mask", "extract mask region", "mask slice"]
    CATEGORY = CATEGORY
    RETURN_TYPES = ("MASK",)
    FUNCTION = "crop"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "mask": ("MASK", {"tooltip": "The mask to cut."}),
                "x": side("Pixels from the left edge to the rectangle.", default=0, smallest=0),
                "y": side("Pixels from the top edge to the rectangle.", default=0, smallest=0),
                "width": side("Width of the rectangle in pixels."),
                "height": side("Height of the rectangle in pixels."),
            }
        }

    def crop(self, mask: Tensor, x: int, y: int, width: int, height: int) -> tuple[Tensor]:
        return (_batch(mask)[:, y : y + height, x : x + width],)


class ThresholdMask:
    DESCRIPTION = "Makes a mask hard: all or nothing."
    SEARCH_ALIASES: ClassVar[list[str]] = ["binary mask"]
    CATEGORY = CATEGORY
    RETURN_TYPES = ("MASK",)
    FUNCTION = "cut"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        value = {"default": 0.5, "min": 0.0, "max": 1.0, "step": 0.01}
        return {
            "required": {
                "mask": ("MASK", {"tooltip": "The mask to change."}),
                "value": ("FLOAT", {**value, "tooltip": "What lies above becomes 1, the rest 0."}),
            }
        }

    def cut(self, mask: Tensor, value: float) -> tuple[Tensor]:
        return ((mask > value).float(),)


NODES = {
    "GrowMask": (GrowMask, "Grow Mask"),
    "FeatherMask": (FeatherMask, "Feather Mask"),
    "MaskComposite": (MaskComposite, "Combine Masks"),
    "CropMask": (CropMask, "Crop Mask"),
    "ThresholdMask": (ThresholdMask, "Threshold Mask"),
}
