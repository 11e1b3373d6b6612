"""Drawn scenes: one coloured shape on a coloured background.

All lengths are in units of the picture side, x to the right, y down.
"""

import hashlib
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

COLORS: dict[str, tuple[float, float, float]] = {
    "red": (0.86, 0.12, 0.14),
    "orange": (0.98, 0.55, 0.08),
    "yellow": (0.97, 0.88, 0.18),
    "green": (0.12, 0.62, 0.25),
    "blue": (0.13, 0.35, 0.86),
    "purple": (0.55, 0.18, 0.66),
    "white": (0.96, 0.96, 0.96),
    "black": (0.06, 0.06, 0.06),
}
SHAPES = ("circle", "square", "triangle", "star", "heart", "ring")
SIZES = ("small", "large")
PLACES = (
    "center",
    "left",
    "right",
    "top",
    "bottom",
    "top left",
    "top right",
    "bottom left",
    "bottom right",
)
# Number of values of each attribute, in the order that class indices have everywhere.
CLASSES = (len(COLORS), len(SHAPES), len(COLORS), len(SIZES), len(PLACES))

RADIUS = {"small": 46 / 256, "large": 70 / 256}
OFFSET = {"small": 64 / 256, "large": 36 / 256}  # of an off-centre object from the middle

CENTER_JITTER = 6 / 256
RADIUS_JITTER = 0.04
COLOR_JITTER = 0.04
HELD_OUT_SHARE = 0.1


@dataclass(frozen=True)
class Attributes:
    """What a caption says of a scene."""

    background: str
    shape: str
    color: str
    size: str
    place: str


@dataclass(frozen=True)
class SceneBatch:
    """B scenes: class indices (int64, B) and exact parameters (float32)."""

    background: Tensor
    shape: Tensor
    color: Tensor
    size: Tensor
    place: Tensor
    background_rgb: Tensor  # B×3
    rgb: Tensor  # B×3
    center_x: Tensor
    center_y: Tensor
    radius: Tensor

    def __len__(self) -> int:
        return len(self.shape)

    @property
    def classes(self) -> Tensor:
        """B×5: background, shape, colour, size, place."""
        return torch.stack([self.background, self.shape, self.color, self.size, self.place], dim=1)


def all_attributes() -> list[Attributes]:
    """Every combination; the object never has the background's colour."""
    return [
        Attributes(background, shape, color, size, place)
        for background, shape, color, size, place in itertools.product(
            COLORS, SHAPES, COLORS, SIZES, PLACES
        )
        if background != color
    ]


def is_held_out(attributes: Attributes) -> bool:
    """Whether a combination is kept out of training: a stable tenth of them."""
    words = (
        attributes.background,
        attributes.shape,
        attributes.color,
        attributes.size,
        attributes.place,
    )
    digest = hashlib.sha256("|".join(words).encode()).digest()
    return int.from_bytes(digest[:4], "big") < HELD_OUT_SHARE * 2**32


def class_indices(attributes: Sequence[Attributes]) -> Tensor:
    """n×5: background, shape, colour, size, place."""
    colors = list(COLORS)
    rows = [
        (
            colors.index(a.background),
            SHAPES.index(a.shape),
            colors.index(a.color),
            SIZES.index(a.size),
            PLACES.index(a.place),
        )
        for a in attributes
    ]
    return torch.tensor(rows)


def attributes_of(classes: Tensor) -> list[Attributes]:
    """The inverse of `class_indices`."""
    colors = list(COLORS)
    return [
        Attributes(colors[b], SHAPES[s], colors[c], SIZES[z], PLACES[p])
        for b, s, c, z, p in classes.tolist()
    ]


def sample_scenes(
    n: int,
    generator: torch.Generator,
    attributes: Sequence[Attributes] | None = None,
    held_out: bool = False,
) -> SceneBatch:
    """n scenes: of the `attributes` given (n of them), else of random training combinations, or of
    held-out ones; centre, radius and colours vary a little."""
    if attributes is None:
        pool = [a for a in all_attributes() if is_held_out(a) == held_out]
        picks = torch.randint(len(pool), (n,), generator=generator).tolist()
        attributes = [pool[i] for i in picks]
    background, shape, color, size, place = class_indices(attributes).unbind(dim=1)
    palette = torch.tensor(list(COLORS.values()))

    def vary(*shape: int, by: float) -> Tensor:
        return (torch.rand(shape, generator=generator) * 2 - 1) * by

    middles = torch.tensor([_middle(a.place, a.size) for a in attributes])
    center = middles + vary(n, 2, by=CENTER_JITTER)
    radius = torch.tensor([RADIUS[a.size] for a in attributes])
    return SceneBatch(
        background=background,
        shape=shape,
        color=color,
        size=size,
        place=place,
        background_rgb=(palette[background] + vary(n, 3, by=COLOR_JITTER)).clamp(0, 1),
        rgb=(palette[color] + vary(n, 3, by=COLOR_JITTER)).clamp(0, 1),
        center_x=center[:, 0],
        center_y=center[:, 1],
        radius=radius * (1 + vary(n, by=RADIUS_JITTER)),
    )


def _middle(place: str, size: str) -> tuple[float, float]:
    """The centre that a place word means."""
    offset = OFFSET[size]
    x = 0.5 - offset * ("left" in place) + offset * ("right" in place)
    y = 0.5 - offset * ("top" in place) + offset * ("bottom" in place)
    return x, y


def draw(scenes: SceneBatch, size: int) -> Tensor:
    """B×3×size×size float32 in [0, 1], antialiased over one pixel."""
    mask = coverage(scenes, size)
    background = scenes.background_rgb[:, :, None, None]
    return background + mask * (scenes.rgb[:, :, None, None] - background)


def coverage(scenes: SceneBatch, size: int) -> Tensor:
    """How much of each pixel the object covers: B×1×size×size in [0, 1]."""
    middles = (torch.arange(size) + 0.5) / size
    x = (middles[None, None, :] - scenes.center_x[:, None, None]) / scenes.radius[:, None, None]
    y = (middles[None, :, None] - scenes.center_y[:, None, None]) / scenes.radius[:, None, None]
    mask = torch.empty(len(scenes), 1, size, size)
    for index, name in enumerate(SHAPES):
        rows = (scenes.shape == index).nonzero()[:, 0]
        if len(rows):
            distance = _DISTANCES[name](x[rows], y[rows])
            pixels = distance * (scenes.radius[rows] * size)[:, None, None]
            mask[rows, 0] = (0.5 - pixels).clamp(0, 1)
    return mask


# Signed distances (negative inside) of shapes of radius 1 around their centroid; near the outline,
# which is all that antialiasing needs, they are true distances.


def _circle(x: Tensor, y: Tensor) -> Tensor:
    return torch.hypot(x, y) - 0.95


def _ring(x: Tensor, y: Tensor) -> Tensor:
    return (torch.hypot(x, y) - 0.75).abs() - 0.25


def _square(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(x.abs(), y.abs()) - 0.85


def _heart(x: Tensor, y: Tensor) -> Tensor:
    """A square on its corner and a disc on each of its upper edges."""
    d = 0.82  # half the square's diagonal
    y = y - 0.313 * d  # the centroid lies above the square's middle
    diamond = (x.abs() + y.abs() - d) / math.sqrt(2)
    disc = torch.hypot(x.abs() - d / 2, y + d / 2) - d / math.sqrt(2)
    return torch.minimum(diamond, disc)


def _polygon(corners: Sequence[tuple[float, float]]) -> Callable[[Tensor, Tensor], Tensor]:
    """Distance to a polygon's outline, signed by the winding (even-odd) rule."""

    def distance(x: Tensor, y: Tensor) -> Tensor:
        x, y = torch.broadcast_tensors(x, y)
        nearest = torch.full_like(x, math.inf)
        inside = torch.zeros_like(x, dtype=torch.bool)
        for (ax, ay), (bx, by) in zip(corners, [*corners[1:], corners[0]], strict=True):
            ex, ey = bx - ax, by - ay
            px, py = x - ax, y - ay
            along = ((px * ex + py * ey) / (ex * ex + ey * ey)).clamp(0, 1)
            nearest = torch.minimum(nearest, (px - along * ex) ** 2 + (py - along * ey) ** 2)
            if ey != 0:
                crosses = ((y >= ay) != (y >= by)) & (px < py * (ex / ey))
                inside ^= crosses
        return nearest.sqrt() * torch.where(inside, -1.0, 1.0)

    return distance


def _star_corners() -> list[tuple[float, float]]:
    corners = []
    for i in range(10):
        radius = 1.12 if i % 2 == 0 else 0.5
        angle = math.pi * i / 5
        corners.append((radius * math.sin(angle), -radius * math.cos(angle)))
    return corners


def _triangle_corners() -> list[tuple[float, float]]:
    return [
        (1.15 * math.sin(angle), -1.15 * math.cos(angle))
        for angle in (0.0, 2 * math.pi / 3, 4 * math.pi / 3)
    ]


_DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _polygon(_triangle_corners()),
    "star": _polygon(_star_corners()),
    "heart": _heart,
    "ring": _ring,
}
