"""Loss curves and sample sheets as PNG."""

import json
import textwrap
from pathlib import Path

from PIL import Image, ImageDraw
from torch import Tensor

from ..files import write_atomically
from ..pictures import to_pil


def plot_losses(log: Path, target: Path) -> None:
    """Draws each number of a `log.jsonl` by step: losses as smoothed lines, probes as dots."""
    from matplotlib.figure import Figure  # only training needs it

    records = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    names = sorted({name for record in records for name in record if name != "step"})
    if not names:
        return
    figure = Figure(figsize=(10, 2.2 * len(names)), layout="constrained")
    axes = figure.subplots(len(names), 1, squeeze=False)[:, 0]
    for axis, name in zip(axes, names, strict=True):
        steps = [record["step"] for record in records if name in record]
        values = [record[name] for record in records if name in record]
        dense = len(values) > 0.5 * len(records)
        axis.plot(steps, _smooth(values) if dense else values, "-" if dense else "o-", linewidth=1)
        axis.set_title(name, loc="left", fontsize=9)
        axis.grid(alpha=0.3)
        if dense and min(values) > 0:
            axis.set_yscale("log")
    with write_atomically(target) as partial:
        figure.savefig(partial, format="png", dpi=80)


def _smooth(values: list[float], decay: float = 0.98) -> list[float]:
    result, mean = [], values[0]
    for value in values:
        mean = decay * mean + (1 - decay) * value
        result.append(mean)
    return result


def contact_sheet(
    pictures: Tensor, columns: int, captions: list[str] | None = None, side: int = 128
) -> Image.Image:
    """B×3×H×W in [0, 1] -> one picture of thumbnails, row by row, with a caption under each."""
    strip = 4 * 11 if captions else 0  # four lines
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * (side + 4), rows * (side + strip + 4)), "white")
    draw = ImageDraw.Draw(sheet)
    for i, pixels in enumerate(pictures):
        left, top = (i % columns) * (side + 4), (i // columns) * (side + strip + 4)
        sheet.paste(to_pil(pixels).resize((side, side), Image.Resampling.LANCZOS), (left, top))
        if captions:
            text = "\n".join(textwrap.wrap(captions[i], width=side // 5)[:4])
            draw.text((left + 1, top + side), text, fill="black", font_size=9, spacing=1)
    return sheet
