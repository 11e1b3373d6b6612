"""Parts of a latent: pasting one latent over another, and where to draw anew."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from ...nodes.latent import Latent
from ...wuerstchen_core.errors import WireError

CATEGORY = "model/latent"
STEP = 8  # units a cell, whatever the latent is: ComfyUI counts in Stable Diffusion's pixels


class LatentComposite:
    DESCRIPTION = "Pastes one latent over another."
    SEARCH_ALIASES: ClassVar[list[str]] = ["overlay latent", "layer latent", "paste latent"]
    CATEGORY = CATEGORY
    RETURN_TYPES = ("LATENT",)
    FUNCTION = "paste"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        def place(tooltip: str) -> tuple[str, dict[str, Any]]:
            limits = {"default": 0, "min": 0, "max": 16384, "step": STEP}
            return ("INT", {**limits, "tooltip": f"{tooltip}; 8 for each cell of the latent."})

        return {
            "required": {
                "samples_to": ("LATENT", {"tooltip": "The latent below; it gives the size."}),
                "samples_from": ("LATENT", {"tooltip": "The latent to paste over it."}),
                "x": place("Where its left edge goes"),
                "y": place("Where its top edge goes"),
                "feather": place("How far its inner edges fade in"),
            }
        }

    def paste(
        self, samples_to: Latent, samples_from: Latent, x: int, y: int, feather: int = 0
    ) -> tuple[Latent]:
        below, above = samples_to["samples"], samples_from["samples"]
        _check_fit(below, above)
        left, top, soft = x // STEP, y // STEP, feather // STEP
        above = above[..., : max(0, below.shape[2] - top), : max(0, below.shape[3] - left)]
        height, width = above.shape[2:]
        rows = _ramp(height, soft, top > 0, top + height < below.shape[2])
        columns = _ramp(width, soft, left > 0, left + width < below.shape[3])
        weight = (rows[:, None] * columns).to(below)

        result = below.clone()
        window = result[..., top : top + height, left : left + width]
        window.copy_(above * weight + window * (1.0 - weight))
        return ({**samples_to, "samples": result},)


def _check_fit(below: Tensor, above: Tensor) -> None:
    if above.shape[1] != below.shape[1] or len(above) not in (1, len(below)):
        raise WireError(
            f"samples_from has {len(above)} latents of {above.shape[1]} channels, samples_to "
            f"{len(below)} of {below.shape[1]}; wire latents of the same stage and batch size."
        )


def _ramp(length: int, feather: int, at_start: bool, at_end: bool) -> Tensor:
    """Weights along one side: 1, rising over `feather` cells at the edges named."""
    ramp = torch.ones(length)
    for step in range(feather):
        level = (step + 1) / feather
        if at_start:
            ramp[step : step + 1] *= level
        if at_end:
            # Beyond the length these bounds turn negative and count from the end, as in ComfyUI.
            ramp[length - 1 - step : length - step] *= level
    return ramp


class SetLatentNoiseMask:
    DESCRIPTION = "Marks the part of a latent that a sampler may draw anew."
    CATEGORY = CATEGORY
    RETURN_TYPES = ("LATENT",)
    FUNCTION = "set_mask"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "samples": ("LATENT", {"tooltip": "The latent to mark."}),
                "mask": ("MASK", {"tooltip": "1 where to draw anew, 0 what to keep."}),
            }
        }

    def set_mask(self, samples: Latent, mask: Tensor) -> tuple[Latent]:
        return ({**samples, "noise_mask": mask.reshape(-1, 1, *mask.shape[-2:])},)


NODES = {
    "LatentComposite": (LatentComposite, "Latent Composite"),
    "SetLatentNoiseMask": (SetLatentNoiseMask, "Set Latent Noise Mask"),
}
