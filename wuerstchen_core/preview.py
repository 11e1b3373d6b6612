"""Small pictures of latents: a linear map from a cell's channels to a colour, and its fit.

Maps read latents in the space that wires carry: embedding space for Stage C, VQ space for Stage B.
`on_wire` brings there what a sampler works on.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from .errors import UnreadableCheckpointError
from .files import write_atomically
from .geometry import Geometry
from .stage_b import VQ_SCALE, StageBConfig
from .stage_c import StageCConfig, to_embedding

Array = NDArray[np.float64]
StageConfig = StageCConfig | StageBConfig

SIDE = 256  # px, of a preview's longer side
KEEP = 0.98  # of what older pictures say, after each new one: the last 50 count
# How many pictures' worth of "colours do not depend on this channel" each channel starts with:
# few pictures hold too few colours to tell 16 channels apart.
DOUBT = 1 / 32

# What a folder of weights calls the file of its maps (see `read_fits`).
MAPS_FILE = "previews.json"

# Colours of the three strongest components of a latent whose map is unknown: light, and a little
# of red against blue and green against both.
_TONES = np.array([[0.3, 0.3, 0.3], [0.08, 0.0, -0.08], [-0.04, 0.08, -0.04]])
_SPREAD = 2.5  # standard deviations that span the tones


def key_of(config: StageConfig) -> str:
    """Names the latents that networks of this size make.

    It holds the sizes that tell trainings from nothing apart, and that also weights without a
    config.json tell, so finetuned networks share a map; the demo and the published ones do not.
    """
    if isinstance(config, StageCConfig):
        sizes = [(config.c_in,), (config.c,), (config.depth,), (config.c_cond,)]
        return f"{config.family}/{_joined(sizes)}"
    sizes = [(config.c_in,), config.c_hidden, config.blocks, (config.clip_embd,)]
    return f"stage_b/{_joined(sizes)}"


def _joined(sizes: list[tuple[int, ...]]) -> str:
    return "/".join("-".join(map(str, group)) for group in sizes)


def on_wire(config: StageConfig, x0: Tensor) -> Tensor:
    """A sampler's x0 -> the same latent as wires carry it."""
    if isinstance(config, StageCConfig):
        return to_embedding(x0, type(config))
    return x0 * VQ_SCALE


@dataclass(frozen=True)
class LinearMap:
    """Colour = channels @ weight + bias, in [0, 1] where it fits."""

    weight: Array  # C×3
    bias: Array  # 3

    def colours(self, cells: Array) -> Array:
        """h×w×C -> h×w×3."""
        return cells @ self.weight + self.bias


@dataclass(frozen=True)
class Fit:
    """The normal equations of a `LinearMap`; each picture weighs 1, whatever its size."""

    gram: Array  # (C+1)×(C+1): means of products of [channels, 1], summed over pictures
    cross: Array  # (C+1)×3: the same with colours

    @staticmethod
    def empty(channels: int) -> "Fit":
        return Fit(np.zeros((channels + 1, channels + 1)), np.zeros((channels + 1, 3)))

    @property
    def channels(self) -> int:
        return len(self.gram) - 1

    def after(self, latents: Tensor, pixels: Tensor, keep: float = KEEP) -> "Fit":
        """The fit that has also seen these; latents B×C×h×w, pixels B×3×H×W in [0, 1].

        Pictures with anything not finite in them are left out.
        """
        colours = F.adaptive_avg_pool2d(pixels.float(), (latents.shape[-2], latents.shape[-1]))
        gram, cross = self.gram, self.cross
        for latent, colour in zip(latents, colours, strict=True):
            x, y = cells_of(latent).reshape(-1, self.channels), cells_of(colour).reshape(-1, 3)
            if not (np.isfinite(x).all() and np.isfinite(y).all()):
                continue
            x = np.column_stack([x, np.ones(len(x))])
            gram = keep * gram + x.T @ x / len(x)
            cross = keep * cross + x.T @ y / len(x)
        return Fit(gram, cross)

    def solve(self) -> LinearMap | None:
        """The best map, drawn to the mean colour while few pictures are known; None for none."""
        pictures = self.gram[-1, -1]
        if pictures == 0:
            return None
        mean, mean_colour = self.gram[-1, :-1] / pictures, self.cross[-1] / pictures
        power = self.gram[:-1, :-1] / pictures
        covariance = power - np.outer(mean, mean)
        slope = self.cross[:-1] / pictures - np.outer(mean, mean_colour)
        # The trace is C times a channel's mean power.
        ridge = DOUBT / pictures * np.trace(power) + np.finfo(np.float64).tiny
        weight = np.linalg.solve(covariance + ridge * np.eye(self.channels), slope)
        return LinearMap(weight, mean_colour - mean @ weight)


def cells_of(latent: Tensor) -> Array:
    """C×h×w -> h×w×C."""
    return latent.detach().movedim(0, -1).double().cpu().numpy()


def principal_colours(cells: Array) -> Array:
    """A first look at a latent whose map is unknown, h×w×C -> h×w×3: its shapes in calm colours."""
    flat = cells.reshape(-1, cells.shape[-1])
    flat = flat - flat.mean(axis=0)
    axes = np.linalg.eigh(flat.T @ flat)[1][:, :-4:-1]
    # An axis may point either way; without a rule the picture would flip from step to step.
    largest = np.abs(axes).argmax(axis=0, keepdims=True)
    scores = flat @ (axes * np.sign(np.take_along_axis(axes, largest, axis=0)))
    scores /= _SPREAD * scores.std(axis=0) + np.finfo(np.float64).tiny
    return (0.5 + scores.clip(-1, 1) @ _TONES).reshape(*cells.shape[:-1], 3)


def picture(colours: Array, geometry: Geometry | None = None) -> Image.Image:
    """h×w×3 in [0, 1] -> a smooth picture, cut to the asked size where one is given."""
    rows, columns = colours.shape[:2]
    left, top, width, height = 0.0, 0.0, float(columns), float(rows)
    if geometry is not None and (rows, columns) in (geometry.stage_c, geometry.stage_b):
        cell = geometry.canvas[0] / rows  # px
        left, top = geometry.offset[1] / cell, geometry.offset[0] / cell
        width, height = geometry.width / cell, geometry.height / cell
    scale = SIDE / max(width, height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    bytes_ = (colours.clip(0, 1) * 255).round().astype(np.uint8)
    box = (left, top, left + width, top + height)
    return Image.fromarray(bytes_).resize(size, Image.Resampling.BICUBIC, box=box)


def read_fits(path: Path) -> dict[str, Fit]:
    """Fits by key. Raises UnreadableCheckpointError for what `write_fits` did not write."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {str(key): _fit(value) for key, value in found.items()}
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise UnreadableCheckpointError(
            f"{path.name} is no file of preview maps ({type(error).__name__}); remove it."
        ) from error


def write_fits(path: Path, fits: Mapping[str, Fit]) -> None:
    plain = {
        key: {"gram": fit.gram.tolist(), "cross": fit.cross.tolist()} for key, fit in fits.items()
    }
    with write_atomically(path) as partial:
        partial.write_text(json.dumps(plain), encoding="utf-8")


def _fit(value: Mapping[str, Any]) -> Fit:
    gram = np.asarray(value["gram"], dtype=np.float64)
    cross = np.asarray(value["cross"], dtype=np.float64)
    size = len(gram)
    if size < 2 or gram.shape != (size, size) or cross.shape != (size, 3):
        raise ValueError("shapes that do not belong together")
    if not (np.isfinite(gram).all() and np.isfinite(cross).all() and gram[-1, -1] >= 0):
        raise ValueError("values that no pictures give")
    return Fit(gram, cross)
