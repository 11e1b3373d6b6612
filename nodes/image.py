"""Between pictures and latents."""

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor

from ..wuerstchen_core.errors import WireError
from ..wuerstchen_core.generate import decode_pixels, encode_embedding, encode_pixels
from ..wuerstchen_core.geometry import Geometry, on_canvas
from ..wuerstchen_core.image_encoder import ImageEncoder
from ..wuerstchen_core.stage_a import StageA
from . import previews, runtime
from .latent import SIZE_KEY, STAGE_B_CHANNELS, STAGE_C_CHANNELS, Latent
from .parts import Part

CATEGORY = "Würstchen/image"


def _on_canvas(pixels: Tensor) -> tuple[Tensor, Geometry]:
    """IMAGE B×H×W×C -> B×3×canvas and its geometry; an alpha channel is left out."""
    if pixels.ndim != 4 or pixels.shape[-1] not in (3, 4):
        raise WireError(
            f"this picture has the shape {tuple(pixels.shape)}; batch×height×width×3 is expected."
        )
    geometry = Geometry(width=pixels.shape[2], height=pixels.shape[1])
    return on_canvas(pixels[..., :3].movedim(-1, 1).float(), geometry), geometry


def _latent(samples: Tensor, geometry: Geometry) -> Latent:
    return {"samples": samples, SIZE_KEY: (geometry.width, geometry.height)}


class StageADecode:
    """Stage B latent -> picture."""

    CATEGORY = CATEGORY
    DESCRIPTION = "Stage A, the VQGAN: from the Stage B latent to pixels, cut to the asked size."
    SEARCH_ALIASES: ClassVar[list[str]] = ["wuerstchen vae decode", "vqgan", "stage a"]
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("image",)
    FUNCTION = "decode"
    DECODE: ClassVar[Callable[..., Tensor]] = staticmethod(decode_pixels)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "stage_a": ("WUERSTCHEN_STAGE_A", {"tooltip": "From a Würstchen loader."}),
                "samples": ("LATENT", {"tooltip": "From Würstchen Stage B Sampler."}),
            }
        }

    def decode(self, stage_a: Part[StageA], samples: Latent) -> tuple[Tensor]:
        with runtime.running(lambda: stage_a.ready(samples["samples"].shape)) as network:
            progress = runtime.surroundings().progress
            pixels = self.DECODE(network, samples["samples"], progress, stage_a.wraps)
        previews.learn(samples, pixels)
        size = samples.get(SIZE_KEY)
        if size is not None and Geometry(*size).canvas == tuple(pixels.shape[-2:]):
            pixels = Geometry(*size).crop(pixels)
        return (pixels.movedim(1, -1).contiguous(),)


class StageAEncode:
    """Picture -> Stage B latent."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Stage A, the VQGAN: from pixels to the Stage B latent, to start Stage B from a picture."
    )
    SEARCH_ALIASES: ClassVar[list[str]] = ["wuerstchen vae encode", "vqgan encode"]
    RETURN_TYPES = ("LATENT",)
    RETURN_NAMES = ("stage_b_latent",)
    FUNCTION = "encode"
    ENCODE: ClassVar[Callable[..., Tensor]] = staticmethod(encode_pixels)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "stage_a": ("WUERSTCHEN_STAGE_A", {"tooltip": "From a Würstchen loader."}),
                "pixels": ("IMAGE", {"tooltip": "Any size from 64 to 4096 px a side."}),
            }
        }

    def encode(self, stage_a: Part[StageA], pixels: Tensor) -> tuple[Latent]:
        canvas, geometry = _on_canvas(pixels)
        with runtime.running(
            lambda: stage_a.ready((len(pixels), STAGE_B_CHANNELS, *geometry.stage_b))
        ) as network:
            progress = runtime.surroundings().progress
            latent = self.ENCODE(network, canvas, progress, stage_a.wraps)
        return (_latent(latent, geometry),)


class ImageEncode:
    """Picture -> Stage C latent."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "The image encoder: from a picture to the Stage C latent that describes it. Give it to "
        "Stage B to rebuild the picture, or to Stage C with denoise below 1 to vary it."
    )
    SEARCH_ALIASES: ClassVar[list[str]] = ["wuerstchen image to image", "efficientnet", "variation"]
    RETURN_TYPES = ("LATENT",)
    RETURN_NAMES = ("stage_c_latent",)
    FUNCTION = "encode"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image_encoder": (
                    "WUERSTCHEN_IMAGE_ENCODER",
                    {"tooltip": "From a Würstchen loader."},
                ),
                "pixels": ("IMAGE", {"tooltip": "Any size from 64 to 4096 px a side."}),
            }
        }

    def encode(self, image_encoder: Part[ImageEncoder], pixels: Tensor) -> tuple[Latent]:
        canvas, geometry = _on_canvas(pixels)
        shape = (len(pixels), STAGE_C_CHANNELS, *geometry.stage_c)
        with runtime.running(lambda: image_encoder.ready(shape)) as network:
            return (_latent(encode_embedding(network, canvas, geometry.stage_c), geometry),)


NODES = {
    "WuerstchenStageADecode": (StageADecode, "Würstchen Stage A Decode"),
    "WuerstchenStageAEncode": (StageAEncode, "Würstchen Stage A Encode"),
    "WuerstchenImageEncode": (ImageEncode, "Würstchen Image Encode"),
}
