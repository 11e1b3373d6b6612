"""Grids over two settings."""

import math
from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor

from ..wuerstchen_core.errors import SettingError
from ..wuerstchen_core.grid import labelled_grid
from .latent import MOST_PICTURES

MOST = MOST_PICTURES  # cells of a grid too


def _whole(line: str) -> int:
    try:
        return int(line)
    except ValueError:
        raise SettingError(f"'{line}' is no whole number; write one a line.") from None


def _number(line: str) -> float:
    try:
        number = float(line)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise SettingError(f"'{line}' is no number; write one a line, as 0.5.")
    return number


KINDS: dict[str, Callable[[str], str | int | float]] = {
    "text": str,
    "whole number": _whole,
    "number": _number,
}


class XYValues:
    """Two lists of values -> every pair of them."""

    CATEGORY = "Würstchen/grid"
    DESCRIPTION = (
        "Every pair of an x and a y value, for pictures side by side. Wire x and y into the inputs "
        "to vary (text, seed, steps, cfg, denoise, …); what follows runs once for each pair. "
        "Würstchen XY Grid puts the pictures into one."
    )
    SEARCH_ALIASES: ClassVar[list[str]] = ["xy plot", "xyz grid", "compare settings"]
    RETURN_TYPES = ("*", "*", "STRING", "STRING")
    RETURN_NAMES = ("x", "y", "x_labels", "y_labels")
    OUTPUT_IS_LIST = (True, True, False, False)
    OUTPUT_TOOLTIPS = (
        "The x value of each cell, row by row; wire it into an input of its kind.",
        "The y value of each cell.",
        "The columns' labels, for Würstchen XY Grid.",
        "The rows' labels, for Würstchen XY Grid.",
    )
    FUNCTION = "pair"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        def values(where: str, default: str) -> tuple[str, dict[str, Any]]:
            tooltip = f"One value a line: {where}. Without any there is one, an empty text."
            return ("STRING", {"default": default, "multiline": True, "tooltip": tooltip})

        def kind(default: str) -> tuple[str, dict[str, Any]]:
            tooltip = "What the input takes: text; whole number (seed, steps); number (cfg, …)."
            return ("COMBO", {"options": list(KINDS), "default": default, "tooltip": tooltip})

        return {
            "required": {
                "x_values": values("columns, from left to right", "a red star\na blue ring"),
                "x_kind": kind("text"),
                "y_values": values("rows, from top to bottom", "1\n2"),
                "y_kind": kind("whole number"),
            }
        }

    def pair(
        self, x_values: str, x_kind: str, y_values: str, y_kind: str
    ) -> tuple[list[Any], list[Any], str, str]:
        columns, rows = _lines(x_values), _lines(y_values)
        if len(columns) * len(rows) > MOST:
            raise SettingError(
                f"{len(columns)} columns and {len(rows)} rows are more than {MOST} pictures; "
                "write fewer values."
            )
        x, y = [KINDS[x_kind](one) for one in columns], [KINDS[y_kind](one) for one in rows]
        cells = [(one, other) for other in y for one in x]
        return [a for a, _ in cells], [b for _, b in cells], "\n".join(columns), "\n".join(rows)


class XYGrid:
    """Pictures of every pair -> one."""

    CATEGORY = "Würstchen/grid"
    DESCRIPTION = "Puts the pictures of all pairs of Würstchen XY Values into one, with labels."
    SEARCH_ALIASES: ClassVar[list[str]] = ["xy plot", "contact sheet", "image grid"]
    INPUT_IS_LIST = True
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("image",)
    OUTPUT_TOOLTIPS = ("All pictures in one, row by row.",)
    FUNCTION = "arrange"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        def labels(where: str) -> tuple[str, dict[str, Any]]:
            tooltip = f"One label a line, for {where}; long ones are broken into lines."
            return ("STRING", {"default": "", "multiline": True, "tooltip": tooltip})

        return {
            "required": {
                "images": ("IMAGE", {"tooltip": "The pictures, one for each pair, row by row."}),
                "x_labels": labels("the columns"),
                "y_labels": labels("the rows"),
            }
        }

    def arrange(
        self, images: list[Tensor], x_labels: list[str], y_labels: list[str]
    ) -> tuple[Tensor]:
        cells = [image[..., :3].expand(*image.shape[:3], 3).movedim(-1, 1) for image in images]
        made = labelled_grid(cells, _lines(x_labels[0]), _lines(y_labels[0]))
        return (made.movedim(0, -1)[None],)


def _lines(text: str) -> list[str]:
    """What stands on each line that is not empty; one empty line where all are."""
    return [line.strip() for line in text.splitlines() if line.strip()] or [""]


NODES = {
    "WuerstchenXYValues": (XYValues, "Würstchen XY Values"),
    "WuerstchenXYGrid": (XYGrid, "Würstchen XY Grid"),
}
