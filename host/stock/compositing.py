"""Pasting pictures over each other, and room around them to paint. B×H×W×C in [0, 1]."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from .image_tools import LARGEST, opaque, side


class ImageCompositeMasked:
    DESCRIPTION = "Pastes pictures over others, where a mask says so."
    SEARCH_ALIASES: ClassVar[list[str]] = [
        "overlay",
        "layer",
        "paste image",
        "images composition",
    ]
    CATEGORY = "image/compositing"
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "paste"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        resize = "Stretch the source to the size of the destination."
        mask = "1 shows the source, 0 the destination; stretched to the source. None: all of it."
        return {
            "required": {
                "destination": ("IMAGE", {"tooltip": "The pictures below; they give the size."}),
                "source": ("IMAGE", {"tooltip": "The pictures to paste over them."}),
                "x": side("Where the source's left edge goes.", default=0, smallest=0),
                "y": side("Where the source's top edge goes.", default=0, smallest=0),
                "resize_source": ("BOOLEAN", {"default": False, "tooltip": resize}),
            },
            "optional": {"mask": ("MASK", {"tooltip": mask})},
        }

    def paste(
        self,
        destination: Tensor,
        source: Tensor,
        x: int,
        y: int,
        resize_source: bool,
        mask: Tensor | None = None,
    ) -> tuple[Tensor]:
        below = destination.movedim(-1, 1).clone()
        above = opaque(source, destination.shape[-1]).movedim(-1, 1)
        if resize_source:
            above = F.interpolate(above, size=below.shape[-2:], mode="bilinear")
        window = below[..., y : y + above.shape[-2], x : x + above.shape[-1]]
        visible = (..., slice(window.shape[-2]), slice(window.shape[-1]))
        if mask is None:
            shown = torch.ones(1, 1, *window.shape[-2:])
        else:
            stretched = mask.reshape(-1, 1, *mask.shape[-2:])
            stretched = F.interpolate(stretched, size=above.shape[-2:], mode="bilinear")
            shown = _repeated(stretched, len(below))[visible]
        window.copy_(shown * _repeated(above, len(below))[visible] + (1 - shown) * window)
        return (below.movedim(1, -1),)


def _repeated(batch: Tensor, length: int) -> Tensor:
    """The batch from its start, again and again up to this length."""
    return batch[torch.arange(length) % len(batch)]


class ImagePadForOutpaint:
    DESCRIPTION = "Adds grey room around pictures, and gives the mask of what to paint there."
    SEARCH_ALIASES: ClassVar[list[str]] = ["extend canvas", "expand image"]
    CATEGORY = "image/transform"
    RETURN_TYPES = ("IMAGE", "MASK")
    FUNCTION = "pad"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        def room(where: str) -> tuple[str, dict[str, Any]]:
            limits = {"default": 0, "min": 0, "max": LARGEST, "step": 8}
            return ("INT", {**limits, "tooltip": f"Pixels to add {where}."})

        feathering = {
            "default": 40,
            "min": 0,
            "max": LARGEST,
            "step": 1,
            "advanced": True,
            "tooltip": "How many pixels of the picture the mask fades into.",
        }
        return {
            "required": {
                "image": ("IMAGE", {"tooltip": "The pictures to extend."}),
                "left": room("on the left"),
                "top": room("above"),
                "right": room("on the right"),
                "bottom": room("below"),
                "feathering": ("INT", feathering),
            }
        }

    def pad(
        self, image: Tensor, left: int, top: int, right: int, bottom: int, feathering: int
    ) -> tuple[Tensor, Tensor]:
        height, width = image.shape[1:3]
        padded = F.pad(image, (0, 0, left, right, top, bottom), value=0.5)
        fade = torch.zeros(height, width)
        if 0 < feathering * 2 < min(height, width):
            rows = _from_edge(height, top > 0, bottom > 0)[:, None]
            columns = _from_edge(width, left > 0, right > 0)
            distance = torch.minimum(rows, columns).clamp(max=feathering)
            fade = ((feathering - distance) / feathering).square()
        return padded, F.pad(fade, (left, right, top, bottom), value=1.0)[None]


def _from_edge(length: int, at_start: bool, at_end: bool) -> Tensor:
    """Each pixel's distance to the nearer of the edges named."""
    places = torch.arange(length, dtype=torch.float32)
    far = torch.full((length,), float(length))
    start, end = places if at_start else far, length - places if at_end else far
    return torch.minimum(start, end)


NODES = {
    "ImageCompositeMasked": (ImageCompositeMasked, "Image Composite Masked"),
    "ImagePadForOutpaint": (ImagePadForOutpaint, "Pad Image for Outpainting"),
}
