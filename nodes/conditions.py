"""ComfyUI's CONDITIONING -> the texts of a sampling: what stock nodes write beside the states."""

from typing import Any

import torch
from torch import Tensor

from ..wuerstchen_core.conditions import Text
from ..wuerstchen_core.errors import WireError
from ..wuerstchen_core.geometry import Geometry, mask_on_canvas, on_canvas
from .text import Conditioning

AREA_UNIT = 8  # px that Conditioning (Set Area) counts in


def texts_of(conditioning: Conditioning | None, name: str, geometry: Geometry) -> list[Text] | None:
    """Every text of a conditioning, None where nothing is wired. name: of the wire, for errors.

    Masks and areas are those of the request; where it is smaller than its canvas, its border counts
    outwards. Raises WireError for an empty conditioning.
    """
    if conditioning is None:
        return None
    if not conditioning:
        raise WireError(f"`{name}` holds no text; wire an encoded text, which may be empty.")
    return [_text(states, options, geometry) for states, options in conditioning]


def _text(states: Tensor, options: dict[str, Any], geometry: Geometry) -> Text:
    if options.get("control") is not None:
        raise WireError(
            "this conditioning carries a ControlNet, and there is none for Würstchen; remove Apply "
            "ControlNet."
        )
    mask, strength = options.get("mask"), options.get("strength", 1.0)
    if mask is not None:
        mask = mask_on_canvas(mask, geometry) * options.get("mask_strength", 1.0)
    if options.get("area") is not None:
        area = _area(options["area"], geometry)
        mask = area if mask is None else mask * area
    start, end = options.get("start_percent", 0.0), options.get("end_percent", 1.0)
    return Text(states, mask, strength, start, end)


def _area(area: tuple[Any, ...], geometry: Geometry) -> Tensor:
    """What Conditioning (Set Area) gives, (height, width, y, x), as a mask over the canvas."""
    if len(area) != (5 if area[0] == "percentage" else 4):
        raise WireError(
            "this conditioning has an area of frames; pictures have Conditioning (Set Area)."
        )
    if area[0] == "percentage":
        sides = (geometry.height, geometry.width) * 2
        box = [round(share * side) for share, side in zip(area[1:], sides, strict=True)]
    else:
        box = [cells * AREA_UNIT for cells in area]
    height, width, top, left = box
    mask = torch.zeros(1, 1, geometry.height, geometry.width)
    mask[..., top : top + height, left : left + width] = 1
    return on_canvas(mask, geometry)
