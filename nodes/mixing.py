"""Stage C latents mixed, laid over each other, and enlarged."""

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from ..wuerstchen_core.conditions import on_grid
from ..wuerstchen_core.errors import WireError
from ..wuerstchen_core.geometry import LARGEST, SMALLEST, Geometry, mask_on_canvas
from ..wuerstchen_core.mixing import METHODS, collage, enlarge, mix
from ..wuerstchen_core.stage_c import StageCConfig
from ..wuerstchen_core.v1.stage_c import StageCV1Config
from .latent import SIZE_KEY, V1_KEY, Latent, geometry_of, like

CATEGORY = "Würstchen/latent"
OF_STAGE_C = "from Stage C Sampler or Würstchen Image Encode"


def _weight(number: int) -> tuple[str, dict[str, Any]]:
    tooltip = f"How much of latent_{number} is in the mix, beside the other weights; 0: none."
    limits = {"default": 1.0, "min": 0.0, "max": 100.0, "step": 0.01}
    return ("FLOAT", {**limits, "tooltip": tooltip})


def _source(number: int) -> tuple[str, dict[str, Any]]:
    return ("LATENT", {"tooltip": f"A Stage C latent, {OF_STAGE_C}; all of one size."})


def _space_of(latents: Sequence[Latent]) -> type[StageCConfig]:
    """Raises WireError for latents of both versions, whose numbers mean different things."""
    versions = {bool(latent.get(V1_KEY)) for latent in latents}
    if len(versions) > 1:
        raise WireError(
            "some of these latents come from Würstchen v1 and some from v2; take all from one."
        )
    return StageCV1Config if versions.pop() else StageCConfig


def _in_place_of(latent: Latent, samples: Tensor) -> Latent:
    """`samples` as a latent that goes on under the other's noise mask too."""
    mask = {key: latent[key] for key in ("noise_mask",) if key in latent}
    return {**like(latent, samples), **mask}


class MixEmbeddings:
    """Two to four Stage C latents -> one."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Mixes what two to four Stage C latents describe, by weight: pictures with pictures, or "
        "with what a text gave. Stage B draws the mix."
    )
    SEARCH_ALIASES: ClassVar[list[str]] = ["mix images", "blend latents", "slerp", "interpolate"]
    RETURN_TYPES = ("LATENT",)
    RETURN_NAMES = ("stage_c_latent",)
    OUTPUT_TOOLTIPS = ("The mix, a Stage C latent of the first one's size.",)
    FUNCTION = "mix"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        method = {
            "options": list(METHODS),
            "default": "slerp",
            "tooltip": "slerp turns each cell from one to the other and stays as pronounced as "
            "they are; weighted mean adds them up, which is paler where they differ.",
        }
        return {
            "required": {
                "latent_1": _source(1),
                "latent_2": _source(2),
                "weight_1": _weight(1),
                "weight_2": _weight(2),
                "method": ("COMBO", method),
            },
            "optional": {
                "latent_3": _source(3),
                "weight_3": _weight(3),
                "latent_4": _source(4),
                "weight_4": _weight(4),
            },
        }

    def mix(
        self,
        latent_1: Latent,
        latent_2: Latent,
        weight_1: float,
        weight_2: float,
        method: str,
        latent_3: Latent | None = None,
        weight_3: float = 1.0,
        latent_4: Latent | None = None,
        weight_4: float = 1.0,
    ) -> tuple[Latent]:
        given = [
            (latent, weight)
            for latent, weight in (
                (latent_1, weight_1),
                (latent_2, weight_2),
                (latent_3, weight_3),
                (latent_4, weight_4),
            )
            if latent is not None
        ]
        latents, weights = [latent for latent, _ in given], [weight for _, weight in given]
        for latent in latents:
            geometry_of(latent)  # says what is no Stage C latent
        space = _space_of(latents)
        samples = mix([latent["samples"] for latent in latents], weights, method, space)
        return (_in_place_of(latent_1, samples),)


class Collage:
    """Two Stage C latents and a mask -> one."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Lays one Stage C latent over another where a mask says so, so that parts of the picture "
        "come from different ones. A cell is 42.67 px wide; one half covered takes half of each."
    )
    SEARCH_ALIASES: ClassVar[list[str]] = ["compose", "masked blend", "latent composite masked"]
    RETURN_TYPES = ("LATENT",)
    RETURN_NAMES = ("stage_c_latent",)
    OUTPUT_TOOLTIPS = ("Both in one, a Stage C latent of the size of the one below.",)
    FUNCTION = "lay"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        mask = "Where the one above is seen: 1 is only that one, 0 only the one below. Any size."
        return {
            "required": {
                "below": ("LATENT", {"tooltip": f"A Stage C latent, {OF_STAGE_C}."}),
                "above": ("LATENT", {"tooltip": "The one to lay over it, of the same size."}),
                "mask": ("MASK", {"tooltip": mask}),
            }
        }

    def lay(self, below: Latent, above: Latent, mask: Tensor) -> tuple[Latent]:
        geometry_of(above)
        _space_of([below, above])
        samples = below["samples"]
        grid = (samples.shape[-2], samples.shape[-1])
        cover = on_grid(mask_on_canvas(mask, geometry_of(below)), grid, len(samples))
        return (_in_place_of(below, collage(samples, above["samples"], cover)),)


class UpscaleStageC:
    """A Stage C latent -> the same for a larger picture."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Enlarges a Stage C latent for a picture of another size. Sample it again with denoise "
        "around 0.5 for a large picture whose composition is that of the small one."
    )
    SEARCH_ALIASES: ClassVar[list[str]] = ["hires fix", "two pass", "upscale latent"]
    RETURN_TYPES = ("LATENT",)
    RETURN_NAMES = ("stage_c_latent",)
    OUTPUT_TOOLTIPS = ("A Stage C latent for the new size.",)
    FUNCTION = "upscale"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        def side(name: str) -> tuple[str, dict[str, Any]]:
            limits = {"default": 2048, "min": SMALLEST, "max": LARGEST, "step": 1}
            return ("INT", {**limits, "tooltip": f"The new {name} in pixels, any number."})

        return {
            "required": {
                "samples": ("LATENT", {"tooltip": f"A Stage C latent, {OF_STAGE_C}."}),
                "width": side("width"),
                "height": side("height"),
            }
        }

    def upscale(self, samples: Latent, width: int, height: int) -> tuple[Latent]:
        new = Geometry(width, height)
        made = enlarge(samples["samples"], geometry_of(samples), new)
        return ({**_in_place_of(samples, made), SIZE_KEY: (width, height)},)


NODES = {
    "WuerstchenMixEmbeddings": (MixEmbeddings, "Würstchen Mix Embeddings"),
    "WuerstchenCollage": (Collage, "Würstchen Collage"),
    "WuerstchenUpscaleStageC": (UpscaleStageC, "Würstchen Upscale Stage C"),
}
