"""Pictures side by side in one, with words along two sides."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .errors import SettingError, WireError
from .pictures import to_pil

PAPER, INK = "white", "black"
GAP = 4  # px between pictures
LARGEST = 400_000_000  # px: 5 GB as floats
LETTER = 16  # of a picture's height is one line of words
SMALLEST_LETTER = 12  # px

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def labelled_grid(cells: Sequence[Tensor], columns: Sequence[str], rows: Sequence[str]) -> Tensor:
    """The pictures of all cells, row by row, as one 3×H×W in [0, 1].

    cells: each B×3×h×w; a batch lies side by side in its cell. columns, rows: one label each, ""
    for none; where none of a side has one, that side takes no room. Labels are broken into lines.
    Raises WireError where there are not as many cells as the labels say, SettingError for grids
    beyond LARGEST.
    """
    if len(cells) != len(columns) * len(rows):
        raise WireError(
            f"there are {len(cells)} pictures for {len(columns)} columns and {len(rows)} rows; "
            "wire what the same Würstchen XY Values made."
        )
    pictures = [_in_a_row(cell) for cell in cells]
    width = max(one.width for one in pictures)
    height = max(one.height for one in pictures)
    font = ImageFont.load_default(max(SMALLEST_LETTER, height // LETTER))
    above = [_lines(label, width, font) for label in columns]
    beside = [_lines(label, width // 2, font) for label in rows]
    line = _line_height(font)
    top = line * max(map(len, above)) + GAP if any(above) else 0
    left = width // 2 + GAP if any(beside) else 0

    size = (left + len(columns) * (width + GAP), top + len(rows) * (height + GAP))
    if size[0] * size[1] > LARGEST:
        raise SettingError(
            f"the grid would have {size[0]}×{size[1]} px, and {LARGEST / 1e6:.0f} megapixels are "
            "the most; write fewer values, or make smaller pictures."
        )
    sheet = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(sheet)
    for column, lines in enumerate(above):
        middle = left + column * (width + GAP) + width // 2
        _write(pen, lines, middle, top - GAP - line * len(lines), font)
    for row, lines in enumerate(beside):
        middle = top + row * (height + GAP) + height // 2
        _write(pen, lines, left // 2, middle - line * len(lines) // 2, font)
    for number, picture in enumerate(pictures):
        row, column = divmod(number, len(columns))
        x = left + column * (width + GAP) + (width - picture.width) // 2
        y = top + row * (height + GAP) + (height - picture.height) // 2
        sheet.paste(picture, (x, y))
    return torch.from_numpy(np.array(sheet)).float().div_(255).movedim(-1, 0)


def _in_a_row(batch: Tensor) -> Image.Image:
    return to_pil(torch.cat(list(batch), dim=-1))


def _lines(label: str, width: int, font: Font) -> list[str]:
    """A label in lines of at most `width` px, broken between words, and within longer ones."""
    lines = [""]
    for word in label.split():
        if lines[-1] and font.getlength(f"{lines[-1]} {word}") > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
        while font.getlength(lines[-1]) > width and len(lines[-1]) > 1:
            fits = len(lines[-1]) - 1
            while fits > 1 and font.getlength(lines[-1][:fits]) > width:
                fits -= 1
            lines[-1:] = [lines[-1][:fits], lines[-1][fits:]]
    return [line for line in lines if line]


def _line_height(font: Font) -> int:
    _, top, _, bottom = font.getbbox("Ág")
    return round((bottom - top) * 1.3)


def _write(
    pen: ImageDraw.ImageDraw, lines: Sequence[str], middle: int, top: int, font: Font
) -> None:
    """Lines below each other, around a vertical line."""
    for number, text in enumerate(lines):
        x = middle - font.getlength(text) / 2
        pen.text((x, top + number * _line_height(font)), text, fill=INK, font=font)
