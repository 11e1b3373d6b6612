"""Previews while a stage samples, and learning from finished pictures what its latents look like.

Nothing here changes what is sampled, and nothing that goes wrong here ends a run. All of it is
idle where the surroundings keep no maps, as nobody looks there.
"""

import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from ..wuerstchen_core.errors import UnreadableCheckpointError
from ..wuerstchen_core.geometry import Geometry
from ..wuerstchen_core.preview import (
    MAPS_FILE,
    Array,
    LinearMap,
    cells_of,
    key_of,
    on_wire,
    picture,
    principal_colours,
    read_fits,
)
from ..wuerstchen_core.sampling import StepInfo
from ..wuerstchen_core.stage_b import StageB
from ..wuerstchen_core.stage_c import StageC
from . import runtime
from .latent import SIZE_KEY, Latent
from .parts import Part

if TYPE_CHECKING:
    from PIL import Image

log = logging.getLogger(__name__)

ORIGIN_KEY = "wuerstchen_origin"  # of a LATENT: its `Origin`

Stage = Part[StageC] | Part[StageB]


class Painter:
    """Draws the previews of one sampling."""

    def __init__(
        self,
        cells: Callable[[Tensor], Array],
        known: LinearMap | None,
        size: tuple[int, int] | None,
    ) -> None:
        """cells: a sampler's x0 of one picture, C×h×w -> what `known` colours, h×w×C."""
        self._cells = cells
        self._known = known
        self._size = size
        self._failed = False

    def __call__(self, info: StepInfo) -> "Image.Image | None":
        """The first picture of the batch; None once drawing has failed."""
        if self._failed:
            return None
        self._failed = True  # until it is drawn: one failure is enough to hear of
        with harmless():
            drawn = self._draw(info.x0[0])
            self._failed = False
            return drawn
        return None

    def _draw(self, x0: Tensor) -> "Image.Image":
        cells = self._cells(x0)
        if self._known is not None and len(self._known.weight) == cells.shape[-1]:
            colours = self._known.colours(cells)
        else:
            colours = principal_colours(cells)
        return picture(colours, None if self._size is None else Geometry(*self._size))


def painter(stage: Stage, latent: Latent) -> Painter | None:
    """The painter of `stage` sampling a latent of this one's size; None when nobody looks."""
    maps = runtime.surroundings().previews
    if maps is None:
        return None
    with harmless():
        config = stage.get().config

        def cells(x0: Tensor) -> Array:
            return cells_of(on_wire(config, x0))

        return Painter(cells, known_map(stage), latent.get(SIZE_KEY))
    return None


def known_map(stage: Stage) -> LinearMap | None:
    """Which colours a stage's latents stand for: as its checkpoint says, or as pictures taught."""
    with harmless():
        maps, shipped = runtime.surroundings().previews, _shipped_map(stage)
        if shipped is None and maps is not None:
            return maps.lookup(key_of(stage.get().config))
        return shipped
    return None


@dataclass(frozen=True)
class Origin:
    """What made a latent, for `learn`.

    Other nodes copy a LATENT with all its keys and change the samples; `digest` tells that.
    """

    key: str | None  # of the map to learn; None where the checkpoint brings its own
    digest: str  # of the samples
    read: tuple[str, Tensor] | None = field(default=None, repr=False)  # Stage C's key and latent


def with_origin(made: Latent, stage: Stage | None, read: Latent | None = None) -> Latent:
    """`made` with its origin: by `stage`, None where its latents have no map to learn; for Stage B
    from the latent `read`."""
    if runtime.surroundings().previews is None:
        return made
    with harmless():
        key = None if stage is None or _shipped_map(stage) else key_of(stage.get().config)
        before = None if read is None else _origin_of(read)
        source = (before.key, read["samples"]) if read and before and before.key else None
        return {**made, ORIGIN_KEY: Origin(key, _digest(made["samples"]), source)}
    return made


def learn(latent: Latent, pixels: Tensor) -> None:
    """Learns from a finished picture, B×3×canvas in [0, 1], and the Stage B latent it shows."""
    maps = runtime.surroundings().previews
    if maps is None:
        return
    with harmless():
        origin = _origin_of(latent)
        if origin is None:
            return
        if origin.key is not None:
            maps.learn(origin.key, latent["samples"], pixels)
        if origin.read is not None:
            maps.learn(*origin.read, pixels)


def _origin_of(latent: Latent) -> Origin | None:
    """The origin of samples that no other node has changed since."""
    origin = latent.get(ORIGIN_KEY)
    fresh = isinstance(origin, Origin) and origin.digest == _digest(latent["samples"])
    return origin if fresh else None


def _digest(samples: Tensor) -> str:
    data = samples.detach().float().cpu().contiguous().numpy().tobytes()
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _shipped_map(stage: Stage) -> LinearMap | None:
    """What the folder of weights says itself."""
    path = stage.folder / MAPS_FILE if stage.folder else None
    if path is None or not path.is_file():
        return None
    try:
        fit = read_fits(path).get(key_of(stage.get().config))
    except UnreadableCheckpointError as error:
        log.warning("previews are learned from pictures: %s", error)
        return None
    return fit.solve() if fit else None


@contextmanager
def harmless() -> Iterator[None]:
    try:
        yield
    except Exception:
        log.warning("a preview failed; the picture does not need it", exc_info=True)
