"""From our parts to ComfyUI's MODEL, VAE and CLIP."""

from typing import Any, ClassVar

import torch

from ...wuerstchen_core.errors import WireError
from ...wuerstchen_core.geometry import stage_b_grid
from ...wuerstchen_core.text_encoder import TextEncoder
from .. import previews
from ..latent import STAGE_B_CHANNELS, Latent, like
from ..parts import Part
from ..text import Conditioning
from .models import STAGE_C_KEY
from .networks import ComfyStageA, ComfyStageB, ComfyStageC
from .residence import ComfyPart
from .vae import vae_of

CATEGORY = "Würstchen/native"


def _model_of(stage: Any) -> Any:
    model = stage.opened().clone()
    model.model.latent_format.show(previews.known_map(stage))
    return model


class StageCModelNode:
    """Stage C -> MODEL."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Stage C as a MODEL for ComfyUI's own nodes: KSampler and all samplers and schedulers, "
        "LoRA loaders, model merging, masks. The weights stay the same ones."
    )
    SEARCH_ALIASES: ClassVar[list[str]] = ["wuerstchen model", "ksampler prior", "stage c model"]
    RETURN_TYPES = ("MODEL",)
    RETURN_NAMES = ("model",)
    OUTPUT_TOOLTIPS = ("Reads Stage C latents and texts of the prior's text encoder.",)
    FUNCTION = "bridge"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        stage_c = ("WUERSTCHEN_STAGE_C", {"tooltip": "From a Würstchen loader."})
        return {"required": {"stage_c": stage_c}}

    def bridge(self, stage_c: ComfyPart[ComfyStageC]) -> tuple[Any]:
        return (_model_of(stage_c),)


class StageBModelNode:
    """Stage B -> MODEL."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Stage B as a MODEL for ComfyUI's own nodes: KSampler and all samplers and schedulers. "
        "Its conditioning comes from Würstchen Stage B Conditioning."
    )
    SEARCH_ALIASES: ClassVar[list[str]] = ["wuerstchen model", "ksampler decoder", "stage b model"]
    RETURN_TYPES = ("MODEL",)
    RETURN_NAMES = ("model",)
    OUTPUT_TOOLTIPS = ("Reads Stage B latents; its conditioning carries the Stage C latent.",)
    FUNCTION = "bridge"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        stage_b = ("WUERSTCHEN_STAGE_B", {"tooltip": "From a Würstchen loader."})
        return {"required": {"stage_b": stage_b}}

    def bridge(self, stage_b: ComfyPart[ComfyStageB]) -> tuple[Any]:
        return (_model_of(stage_b),)


class StageAVAE:
    """Stage A -> VAE."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Stage A as a VAE for ComfyUI's own nodes: VAE Decode, VAE Decode (Tiled), VAE Encode."
    )
    SEARCH_ALIASES: ClassVar[list[str]] = ["wuerstchen vae", "vqgan", "tiled decode"]
    RETURN_TYPES = ("VAE",)
    RETURN_NAMES = ("vae",)
    OUTPUT_TOOLTIPS = ("Decodes Stage B latents, encodes pictures to them.",)
    FUNCTION = "bridge"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        stage_a = ("WUERSTCHEN_STAGE_A", {"tooltip": "From a Würstchen loader."})
        return {"required": {"stage_a": stage_a}}

    def bridge(self, stage_a: ComfyPart[ComfyStageA]) -> tuple[Any]:
        return (vae_of(stage_a),)


class TextEncoderCLIP:
    """Text encoder -> CLIP."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "A text encoder as a CLIP for ComfyUI's own nodes: CLIP Text Encode with prompt weights "
        "and embeddings, texts longer than 75 tokens."
    )
    SEARCH_ALIASES: ClassVar[list[str]] = ["wuerstchen clip", "prompt weights", "embedding"]
    RETURN_TYPES = ("CLIP",)
    RETURN_NAMES = ("clip",)
    OUTPUT_TOOLTIPS = ("The prior's for Stage C, the decoder's for Stage B.",)
    FUNCTION = "bridge"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        text_encoder = ("WUERSTCHEN_TEXT_ENCODER", {"tooltip": "From a Würstchen loader."})
        return {"required": {"text_encoder": text_encoder}}

    def bridge(self, text_encoder: Part[TextEncoder]) -> tuple[Any]:
        tower: Any = text_encoder.get().network
        return (tower.clip.clone(),)


class StageBConditioning:
    """Stage C latent -> what Stage B's MODEL reads."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Gives Stage B's MODEL the Stage C latent to draw, with a text or without, and the empty "
        "latent that fits."
    )
    SEARCH_ALIASES: ClassVar[list[str]] = ["wuerstchen decoder", "cascade", "stage b conditioning"]
    RETURN_TYPES = ("CONDITIONING", "LATENT")
    RETURN_NAMES = ("conditioning", "latent")
    OUTPUT_TOOLTIPS = (
        "For `positive` of a sampler; without a text also for `negative`, with cfg 1.",
        "An empty Stage B latent of the right size, for `latent_image` of a sampler.",
    )
    FUNCTION = "condition"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "stage_c_latent": (
                    "LATENT",
                    {"tooltip": "What the picture shows: from Stage C, or Würstchen Image Encode."},
                ),
            },
            "optional": {
                "conditioning": (
                    "CONDITIONING",
                    {"tooltip": "A text of the decoder's text encoder; may stay unwired."},
                ),
            },
        }

    def condition(
        self, stage_c_latent: Latent, conditioning: Conditioning | None = None
    ) -> tuple[Conditioning, Latent]:
        samples = stage_c_latent["samples"]
        if samples.ndim != 4:
            raise WireError(
                f"this latent has the shape {tuple(samples.shape)}; a Stage C latent, "
                "batch×16×height×width, is expected here."
            )
        height, width = stage_b_grid((samples.shape[-2], samples.shape[-1]))
        no_text = torch.zeros(1, 0, 1)
        texts = conditioning or [[no_text, {}]]
        carrying = [[states, {**options, STAGE_C_KEY: samples}] for states, options in texts]
        empty = torch.zeros(len(samples), STAGE_B_CHANNELS, height, width)
        return carrying, like(stage_c_latent, empty)


NODES = {
    "WuerstchenStageCModel": (StageCModelNode, "Würstchen Stage C to MODEL"),
    "WuerstchenStageBModel": (StageBModelNode, "Würstchen Stage B to MODEL"),
    "WuerstchenStageAVAE": (StageAVAE, "Würstchen Stage A to VAE"),
    "WuerstchenCLIP": (TextEncoderCLIP, "Würstchen Text Encoder to CLIP"),
    "WuerstchenStageBConditioning": (StageBConditioning, "Würstchen Stage B Conditioning"),
}
