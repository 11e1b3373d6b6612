"""Pixels <-> latent sizes. The only place that knows 128, 42.67 and 10.67.

A request of W×H pixels is sampled on a canvas whose sides are the next multiples of 128 and is
cropped to exactly W×H at the end. 128 px are 3 Stage C cells and 32 Stage B cells. Latents carry
the request as `"wuerstchen_size": (width, height)` in their LATENT dictionary.
"""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from .errors import SettingError, WireError

SMALLEST, LARGEST = 64, 4096  # px, of a request's side
CANVAS_STEP = 128  # px
STAGE_C_CELLS = 3  # of one canvas step: 42.67 px a cell
STAGE_B_CELLS = 32  # of one canvas step: 4 px a cell; 10.67 a Stage C cell


@dataclass(frozen=True)
class Geometry:
    """Every size that belongs to one request. Pairs are (height, width), as in tensors."""

    width: int
    height: int

    def __post_init__(self) -> None:
        if not (SMALLEST <= self.width <= LARGEST and SMALLEST <= self.height <= LARGEST):
            raise SettingError(
                f"size {self.width}×{self.height} is out of range; "
                f"each side may be {SMALLEST} to {LARGEST} px."
            )

    @classmethod
    def of_stage_c(cls, grid: tuple[int, int]) -> "Geometry":
        """The request that fills the canvas of a Stage C latent of (height, width) cells."""
        height, width = (cells // STAGE_C_CELLS * CANVAS_STEP for cells in grid)
        return cls(width, height)

    @property
    def steps(self) -> tuple[int, int]:
        return -(-self.height // CANVAS_STEP), -(-self.width // CANVAS_STEP)

    @property
    def canvas(self) -> tuple[int, int]:
        """Pixels."""
        return self.steps[0] * CANVAS_STEP, self.steps[1] * CANVAS_STEP

    @property
    def stage_c(self) -> tuple[int, int]:
        return self.steps[0] * STAGE_C_CELLS, self.steps[1] * STAGE_C_CELLS

    @property
    def stage_b(self) -> tuple[int, int]:
        return self.steps[0] * STAGE_B_CELLS, self.steps[1] * STAGE_B_CELLS

    @property
    def offset(self) -> tuple[int, int]:
        """Where the request's top left corner lies on the canvas: it is cut from the middle."""
        return (self.canvas[0] - self.height) // 2, (self.canvas[1] - self.width) // 2

    def crop(self, pixels: Tensor) -> Tensor:
        """B×C×canvas -> B×C×height×width, from the middle."""
        top, left = self.offset
        return pixels[..., top : top + self.height, left : left + self.width]


def stage_b_grid(stage_c: tuple[int, int]) -> tuple[int, int]:
    """The Stage B latent's size for a Stage C latent's.

    Raises WireError where Stage B's halvings would not come out even.
    """
    if stage_c[0] % STAGE_C_CELLS or stage_c[1] % STAGE_C_CELLS or 0 in stage_c:
        raise WireError(
            f"the Stage C latent has {stage_c[0]}×{stage_c[1]} cells; Stage B needs both sides to "
            f"be multiples of {STAGE_C_CELLS}, as Würstchen Empty Latent makes them."
        )
    rows, columns = (cells // STAGE_C_CELLS * STAGE_B_CELLS for cells in stage_c)
    return rows, columns


def mask_on_canvas(mask: Tensor, geometry: Geometry) -> Tensor:
    """A mask over the request, B×H×W or B×1×H×W of any size -> B×1×canvas.

    Raises WireError for one without pixels.
    """
    if not mask.numel():
        raise WireError(f"this mask has the shape {tuple(mask.shape)}, which covers nothing.")
    over = mask.float().reshape(-1, 1, *mask.shape[-2:])
    size = (geometry.height, geometry.width)
    if over.shape[-2:] != size:
        over = F.interpolate(over, size, mode="bilinear", antialias=True)
    return on_canvas(over, geometry)


def on_canvas(pixels: Tensor, geometry: Geometry) -> Tensor:
    """B×C×height×width -> B×C×canvas: the border is repeated outwards, the inverse of `crop`."""
    (height, width), (top, left) = geometry.canvas, geometry.offset
    bottom, right = height - geometry.height - top, width - geometry.width - left
    return F.pad(pixels, (left, right, top, bottom), mode="replicate")
