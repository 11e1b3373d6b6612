"""Stage C latents mixed, pasted and enlarged: what they describe can be moved about like paint.

All in embedding space, B×16×h×w, as wires carry them.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from .errors import SettingError, WireError
from .geometry import Geometry
from .stage_c import StageCConfig, from_embedding, to_embedding

Space: TypeAlias = type[StageCConfig]  # tells what space its prior samples in

_PARALLEL = 1e-4  # sin of the angle below which directions are blended linearly


def slerp(one: Tensor, other: Tensor, share: float, of: Space = StageCConfig) -> Tensor:
    """Spherical interpolation (Shoemake 1985), in each cell on its own.

    Each cell's 16 numbers, in the space that Stage C samples in, turn from one direction to the
    other, and their length changes evenly: so a mix is as pronounced as what it mixes, where a
    mean of unlike cells is paler.
    """
    a, b = from_embedding(one, of), from_embedding(other, of)
    length, other_length = (x.norm(dim=1, keepdim=True) for x in (a, b))
    a, b = a / length.clamp(min=1e-12), b / other_length.clamp(min=1e-12)
    angle = (a * b).sum(1, keepdim=True).clamp(-1, 1).acos()
    sine = angle.sin()
    turned = (((1 - share) * angle).sin() * a + (share * angle).sin() * b) / sine
    direction = torch.where(sine < _PARALLEL, torch.lerp(a, b, share), turned)
    return to_embedding(direction * torch.lerp(length, other_length, share), of)


def weighted_mean(one: Tensor, other: Tensor, share: float, _of: Space = StageCConfig) -> Tensor:
    return torch.lerp(one, other, share)


METHODS: dict[str, Callable[[Tensor, Tensor, float, Space], Tensor]] = {
    "slerp": slerp,
    "weighted mean": weighted_mean,
}


def mix(
    latents: Sequence[Tensor], weights: Sequence[float], method: str, of: Space = StageCConfig
) -> Tensor:
    """One latent of several, all of one prior's. Each is mixed into what the ones before it gave,
    by its share of the weights until then; one that alone has a weight comes out as it is.

    Raises SettingError for weights that cannot be shares, WireError for latents of other sizes.
    """
    if min(weights) < 0 or sum(weights) == 0:
        raise SettingError(
            f"the weights {', '.join(f'{w:g}' for w in weights)} are no shares; make none of them "
            "negative, and one of them more than 0."
        )
    batch = max(map(len, latents))
    for latent in latents:
        if latent.shape[1:] != latents[0].shape[1:] or len(latent) not in (1, batch):
            shapes = " and ".join(str(tuple(one.shape)) for one in latents)
            raise WireError(
                f"the latents have the shapes {shapes}; mix pictures of one size, as many of "
                "each, or one with many."
            )
    counted = [pair for pair in zip(latents, weights, strict=True) if pair[1] > 0]
    mixed, total = counted[0]
    for latent, weight in counted[1:]:
        total += weight
        mixed, latent = torch.broadcast_tensors(mixed, latent)
        mixed = METHODS[method](mixed, latent, weight / total, of)
    return mixed.expand(batch, -1, -1, -1)


def collage(below: Tensor, above: Tensor, cover: Tensor) -> Tensor:
    """`above` over `below` where `cover`, B×1×h×w in [0, 1], is 1; a blend in between.

    Raises WireError for latents of other sizes.
    """
    if below.shape != above.shape:
        raise WireError(
            f"the latents have the shapes {tuple(below.shape)} and {tuple(above.shape)}; lay "
            "pictures of one size over each other, as many as there are below."
        )
    return torch.lerp(below, above, cover)


def enlarge(latent: Tensor, old: Geometry, new: Geometry) -> Tensor:
    """The latent of a picture of one size, for another: bicubic over the picture itself.

    Cells that lie on the canvas around the picture get what is at its border.
    """
    rows = _places(new, old, side=0)
    columns = _places(new, old, side=1)
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij")[::-1], dim=-1)
    return F.grid_sample(
        latent,
        grid.expand(len(latent), -1, -1, -1),
        mode="bicubic",
        padding_mode="border",
        align_corners=False,
    )


def _places(new: Geometry, old: Geometry, side: int) -> Tensor:
    """Where the middles of a side's new cells lie on the old canvas, which goes from -1 to 1.

    side: 0 is the height, 1 the width.
    """
    length, old_length = ((one.height, one.width)[side] for one in (new, old))
    cells = new.stage_c[side]
    pixels = (torch.arange(cells) + 0.5) * new.canvas[side] / cells - new.offset[side]
    old_pixels = (pixels / length).clamp(0, 1) * old_length + old.offset[side]
    return old_pixels / old.canvas[side] * 2 - 1
