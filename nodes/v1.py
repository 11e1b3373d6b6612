"""The nodes of Würstchen v1, the original repository's first model, for pictures of 512 px, but for
its samplers: loading, and between pictures and latents.

Text encoding and the empty latent are v2's nodes.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from ..wuerstchen_core.checkpoints import (
    find_parts_v1,
    load_image_encoder_v1,
    load_stage_b_v1,
    load_stage_c_v1,
)
from ..wuerstchen_core.v1.generate import decode_tokens, encode_tokens
from . import image, loaders, runtime
from .choices import folder_choices, resolve, stamp
from .latent import V1_KEY, Latent
from .parts import Part

CATEGORY = "Würstchen/v1"

# Output name, socket and what the output is, in the order of the loader's outputs.
_PARTS = (
    ("stage_c", "WUERSTCHEN_V1_STAGE_C", "The prior: text to the 16-channel latent."),
    ("stage_b", "WUERSTCHEN_V1_STAGE_B", "Paella: to tokens of Stage A's codebook."),
    ("stage_a", "WUERSTCHEN_STAGE_A", "The VQGAN, the same as v2's: tokens to pixels."),
    ("text_encoder", "WUERSTCHEN_TEXT_ENCODER", "CLIP-H: the texts of both stages."),
    (
        "image_encoder",
        "WUERSTCHEN_V1_IMAGE_ENCODER",
        "EfficientNetV2-L: pictures to the 16-channel latent.",
    ),
)
# Those that are v2's, by the names that they have there.
_SHARED = {"stage_a": "stage_a", "text_encoder": "decoder_text_encoder"}
_LOADERS: dict[str, Callable[..., Any]] = {
    "stage_c": load_stage_c_v1,
    "stage_b": load_stage_b_v1,
    "image_encoder": load_image_encoder_v1,
}


def _open(name: str, path: Callable[[], Path], dtype: str, folder: Path) -> Part[Any]:
    """One of `_PARTS`; `path` is asked when it is first used."""
    if name in _SHARED:
        return loaders.open_part(_SHARED[name], path, dtype, folder)
    wanted = loaders.fitting(name, runtime.surroundings().optimization)
    if runtime.inside_comfyui():
        from .native import residence  # needs ComfyUI

        return residence.open_v1_part(name, path, dtype, folder, wanted)
    return Part(lambda kept: _LOADERS[name](path(), dtype, None, kept), folder, wanted)


class LoadPipeline:
    """All parts of one folder of v1's weights."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Opens a folder of Würstchen v1 weights and gives each part its own output. A part is read "
        "when a node first uses it, so parts that are not wired cost nothing."
    )
    SEARCH_ALIASES: ClassVar[list[str]] = ["wuerstchen v1", "paella", "model_stage_b", "checkpoint"]
    RETURN_TYPES = tuple(socket for _, socket, _ in _PARTS)
    RETURN_NAMES = tuple(name for name, _, _ in _PARTS)
    OUTPUT_TOOLTIPS = tuple(tooltip for _, _, tooltip in _PARTS)
    FUNCTION = "load"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        folder = {
            "options": folder_choices(),
            "tooltip": "A folder with model_stage_c.pt, model_stage_b.pt and vqgan_f4_v1_500k.pt "
            "of dome272/wuerstchen, and a folder with CLIP-H and its tokenizer.",
        }
        dtype = loaders.LoadPipeline.INPUT_TYPES()["required"]["dtype"]
        return {"required": {"folder": ("COMBO", folder), "dtype": dtype}}

    def load(self, folder: str, dtype: str) -> tuple[Part[Any], ...]:
        parts = find_parts_v1(resolve(folder))
        return tuple(
            _open(name, lambda name=name: parts.require(name), dtype, parts.folder)
            for name, _, _ in _PARTS
        )

    @classmethod
    def IS_CHANGED(cls, folder: str, dtype: str) -> str:
        return stamp(folder)


class StageADecode(image.StageADecode):
    """Tokens -> picture."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Stage A, the VQGAN: from Würstchen v1's tokens, through the codebook, to pixels, cut to "
        "the asked size."
    )
    SEARCH_ALIASES: ClassVar[list[str]] = ["wuerstchen v1 vae decode", "vqgan", "tokens"]
    DECODE = staticmethod(decode_tokens)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        types = super().INPUT_TYPES()
        samples = ("LATENT", {"tooltip": "Tokens, from Würstchen v1 Stage B Sampler."})
        return {"required": {**types["required"], "samples": samples}}


class StageAEncode(image.StageAEncode):
    """Picture -> tokens."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Stage A, the VQGAN: from pixels to Würstchen v1's tokens, to start its Stage B from a "
        "picture."
    )
    SEARCH_ALIASES: ClassVar[list[str]] = ["wuerstchen v1 vae encode", "vqgan encode", "tokens"]
    RETURN_NAMES = ("tokens",)
    ENCODE = staticmethod(encode_tokens)


class ImageEncode(image.ImageEncode):
    """Picture -> v1's Stage C latent."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Würstchen v1's image encoder: from a picture to the Stage C latent that describes it. "
        "Give it to v1's Stage B to rebuild the picture, or to its Stage C with denoise below 1 to "
        "vary it."
    )
    SEARCH_ALIASES: ClassVar[list[str]] = ["wuerstchen v1 image to image", "efficientnet"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        types = super().INPUT_TYPES()
        encoder = ("WUERSTCHEN_V1_IMAGE_ENCODER", {"tooltip": "From Load Würstchen v1 Pipeline."})
        return {"required": {**types["required"], "image_encoder": encoder}}

    def encode(self, image_encoder: Part[Any], pixels: Tensor) -> tuple[Latent]:
        (made,) = super().encode(image_encoder, pixels)
        return ({**made, V1_KEY: True},)


NODES = {
    "WuerstchenV1LoadPipeline": (LoadPipeline, "Load Würstchen v1 Pipeline"),
    "WuerstchenV1StageADecode": (StageADecode, "Würstchen v1 Stage A Decode"),
    "WuerstchenV1StageAEncode": (StageAEncode, "Würstchen v1 Stage A Encode"),
    "WuerstchenV1ImageEncode": (ImageEncode, "Würstchen v1 Image Encode"),
}
