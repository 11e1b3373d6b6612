"""Reads the attributes of a drawn scene back from its pixels alone."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional as F

from .scenes import COLORS, OFFSET, RADIUS, SHAPES, SIZES, Attributes, SceneBatch, coverage

SIDE = 128  # px, at which everything is measured
BORDER = 2  # px, of the frame that shows the background
CHUNK = 64  # pictures measured at once

FIRST_CONTRAST = 0.12  # RGB distance from the background that may be the object
FARTHEST_COLOR = 0.3  # RGB distance from a palette colour that still has its name
SMALLEST_AREA = 0.01  # of the picture: less is no object
LEAST_OVERLAP = 0.75  # intersection over union with the ideal shape
AREA_FACTOR = 1.6  # between the measured and the expected area
PLACE_TOLERANCE = 0.42  # of the step from the middle to a side; at 0.5 two places are equally near


@dataclass(frozen=True)
class Reading:
    """What a picture shows; None where it is unclear."""

    background: str | None
    shape: str | None
    color: str | None
    size: str | None
    place: str | None


def check(pictures: Tensor) -> list[Reading]:
    """B×3×H×W in [0, 1], square, any size -> B readings."""
    return [reading for chunk in pictures.float().split(CHUNK) for reading in _check(chunk)]


def score(readings: Sequence[Reading], attributes: Sequence[Attributes]) -> dict[str, float]:
    """The share of pictures that show what was asked for: of each attribute, and of "all"."""
    if not attributes:
        raise ValueError("no pictures to score")
    names = [field.name for field in fields(Attributes)]
    right = [
        [getattr(found, name) == getattr(wanted, name) for name in names]
        for found, wanted in zip(readings, attributes, strict=True)
    ]
    shares = {name: sum(row[i] for row in right) / len(right) for i, name in enumerate(names)}
    return shares | {"all": sum(map(all, right)) / len(right)}


def _check(pictures: Tensor) -> list[Reading]:
    small = F.interpolate(pictures, size=(SIDE, SIDE), mode="bilinear", antialias=True)
    background = _border_color(small)
    mask, color = _segment(small, background)
    area = mask.mean(dim=(1, 2, 3))
    center = _centroids(mask)
    units = _unit_areas()
    overlap = _overlaps(mask, area, center, units)

    readings = []
    for i in range(len(pictures)):
        ground = _color_name(background[i])
        if area[i] < SMALLEST_AREA:
            readings.append(Reading(ground, None, None, None, None))
            continue
        best = int(overlap[i].argmax())
        shape = SHAPES[best] if overlap[i, best] >= LEAST_OVERLAP else None
        # Without a shape the average one still tells how far a side is from the middle.
        unit = float(units[best] if shape else units.mean())
        size, factor = _nearest_size(float(area[i]), unit)
        readings.append(
            Reading(
                background=ground,
                shape=shape,
                color=_color_name(color[i]),
                size=size if factor <= AREA_FACTOR else None,
                place=_place(float(center[i, 0]), float(center[i, 1]), OFFSET[size]),
            )
        )
    return readings


def _border_color(pictures: Tensor) -> Tensor:
    """The median of the frame: B×3."""
    frame = torch.ones(SIDE, SIDE, dtype=torch.bool)
    frame[BORDER:-BORDER, BORDER:-BORDER] = False
    return pictures[:, :, frame].median(dim=2).values


def _segment(pictures: Tensor, background: Tensor) -> tuple[Tensor, Tensor]:
    """The object's mask, B×1×h×w of 0 and 1, and its median colour, B×3 (NaN without object)."""
    ground = background[:, :, None, None]
    contrast = (pictures - ground).norm(dim=1, keepdim=True)
    color = _median_color(pictures, _clean(contrast > FIRST_CONTRAST))
    # Now that both colours are known, the outline is where they are equally near.
    nearer = (pictures - color[:, :, None, None]).norm(dim=1, keepdim=True) < contrast
    mask = _clean(nearer)
    return mask, _median_color(pictures, mask)


def _clean(mask: Tensor) -> Tensor:
    """5×5 majority: removes stray pixels and fills holes."""
    votes = F.avg_pool2d(mask.float(), 5, stride=1, padding=2, count_include_pad=False)
    return (votes > 0.5).float()


def _median_color(pictures: Tensor, mask: Tensor) -> Tensor:
    """B×3, over the pixels of the mask."""
    return torch.where(mask > 0, pictures, torch.nan).flatten(2).nanmedian(dim=2).values


def _centroids(mask: Tensor) -> Tensor:
    """B×2: x, y in units of the picture side."""
    middles = (torch.arange(SIDE) + 0.5) / SIDE
    total = mask.sum(dim=(1, 2, 3)).clamp_min(1)
    x = (mask.sum(dim=(1, 2)) * middles).sum(dim=1) / total
    y = (mask.sum(dim=(1, 3)) * middles).sum(dim=1) / total
    return torch.stack([x, y], dim=1)


def _ideal_masks(shape: Tensor, center: Tensor, radius: Tensor) -> Tensor:
    """N shapes, cleaned like the measured masks: N×1×h×w of 0 and 1."""
    unused = torch.zeros_like(shape)
    rgb = torch.zeros(len(shape), 3)
    scenes = SceneBatch(
        background=unused,
        shape=shape,
        color=unused,
        size=unused,
        place=unused,
        background_rgb=rgb,
        rgb=rgb,
        center_x=center[:, 0],
        center_y=center[:, 1],
        radius=radius,
    )
    return _clean(coverage(scenes, SIDE) > 0.5)


def _unit_areas() -> Tensor:
    """The area of each shape at radius 1, in order of SHAPES."""
    radius = RADIUS["large"]
    n = len(SHAPES)
    masks = _ideal_masks(torch.arange(n), torch.full((n, 2), 0.5), torch.full((n,), radius))
    return masks.mean(dim=(1, 2, 3)) / radius**2


def _overlaps(mask: Tensor, area: Tensor, center: Tensor, units: Tensor) -> Tensor:
    """Intersection over union with every shape at the measured centroid and area: B×shapes."""
    batch, n = len(mask), len(SHAPES)
    radius = (area.clamp_min(SMALLEST_AREA)[:, None] / units).sqrt()
    shape = torch.arange(n).repeat(batch)
    ideal = _ideal_masks(shape, center.repeat_interleave(n, dim=0), radius.flatten())
    ideal = ideal.view(batch, n, SIDE, SIDE)
    both = torch.minimum(mask, ideal).sum(dim=(2, 3))
    either = torch.maximum(mask, ideal).sum(dim=(2, 3))
    return both / either.clamp_min(1)


def _color_name(rgb: Tensor) -> str | None:
    palette = torch.tensor(list(COLORS.values()))
    distance = (palette - rgb).norm(dim=1)
    nearest = int(distance.argmin())
    return list(COLORS)[nearest] if distance[nearest] <= FARTHEST_COLOR else None


def _nearest_size(area: float, unit: float) -> tuple[str, float]:
    """The size word whose area is nearest, and the factor between the two areas, at least 1."""
    factors = {size: area / (unit * RADIUS[size] ** 2) for size in SIZES}
    off = {size: max(factor, 1 / factor) for size, factor in factors.items()}
    size = min(SIZES, key=off.__getitem__)
    return size, off[size]


def _place(x: float, y: float, offset: float) -> str | None:
    """The place word of a centroid; offset: from the middle to a side, for the object's size."""
    steps = [(value - 0.5) / offset for value in (y, x)]
    nearest = [min(max(round(step), -1), 1) for step in steps]
    if any(abs(s - n) > PLACE_TOLERANCE for s, n in zip(steps, nearest, strict=True)):
        return None
    vertical, horizontal = nearest
    words = (("top", "", "bottom")[vertical + 1], ("left", "", "right")[horizontal + 1])
    return " ".join(filter(None, words)) or "center"
