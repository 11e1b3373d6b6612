"""What a state dict is, from its names and shapes only."""

import re
from collections.abc import Iterable
from enum import Enum


class Kind(Enum):
    """What weights can be: a name for people, and where the file belongs."""

    STAGE_C = ("Würstchen Stage C (the prior)", "load it as Stage C")
    STAGE_B = ("Würstchen v2 Stage B (the decoder)", "load it as Stage B")
    STAGE_A = ("Würstchen Stage A (the VQGAN)", "load it as Stage A")
    IMAGE_ENCODER = ("the Würstchen v2 image encoder", "load it as the image encoder")
    TEXT_ENCODER = ("a CLIP text encoder", "load it as a text encoder")
    STAGE_B_V1 = (
        "Würstchen v1 Stage B (Paella)",
        "load its folder with Load Würstchen v1 Pipeline; v2's is warp-ai/wuerstchen's decoder",
    )
    IMAGE_ENCODER_V1 = (
        "the Würstchen v1 image encoder (EfficientNetV2-L)",
        "load its folder with Load Würstchen v1 Pipeline; v2's is warp-ai/EfficientNetEncoder",
    )
    CASCADE_C = ("Stable Cascade Stage C", "it belongs into ComfyUI's own Stable Cascade nodes")
    CASCADE_B = ("Stable Cascade Stage B", "it belongs into ComfyUI's own Stable Cascade nodes")
    CASCADE_ENCODER = (
        "the Stable Cascade image encoder",
        "it belongs to Stable Cascade; use warp-ai/EfficientNetEncoder",
    )
    PREVIEWER = ("a latent previewer", "it only draws previews of Stage C latents")
    LORA = ("a LoRA", "it changes a model; apply it with Load Würstchen LoRA")
    FLUX = ("a Flux or SD3 transformer", "it belongs into ComfyUI's own diffusion model loader")
    STABLE_DIFFUSION = (
        "a Stable Diffusion checkpoint",
        "it belongs into ComfyUI's own checkpoint loader",
    )
    VAE = ("a Stable Diffusion VAE", "it belongs into ComfyUI's own VAE loader")
    CLIP_VISION = (
        "a CLIP vision encoder",
        "it belongs into ComfyUI's own CLIP vision loader; Würstchen's encoder is "
        "warp-ai/EfficientNetEncoder",
    )
    EMBEDDING = (
        "a textual inversion",
        "put it into the embeddings folder and name it in a prompt",
    )
    CONTROLNET = ("a ControlNet", "it belongs into ComfyUI's own ControlNet loader")
    UPSCALER = ("an upscaling model", "it belongs into ComfyUI's own upscale model loader")
    T5 = ("a T5 text encoder", "Würstchen reads the states of CLIP-bigG and CLIP-H only")
    LANGUAGE_MODEL = ("a language model", "Würstchen reads the states of CLIP-bigG and CLIP-H only")
    UNKNOWN = ("unknown", "no part of Würstchen has tensors of these names")

    @property
    def title(self) -> str:
        return self.value[0]

    @property
    def advice(self) -> str:
        return self.value[1]


# The first kind all of whose patterns find a name; whatever contains others' names comes first.
_SIGNS: tuple[tuple[Kind, tuple[str, ...]], ...] = (
    (Kind.LORA, (r"lora_[A-Za-z]|[._]lora\.|\.hada_|\.lokr_|\.diff(_b)?$",)),
    (Kind.CASCADE_B, (r"^(effnet_mapper|pixels_mapper)\.\d",)),
    (Kind.CASCADE_C, (r"^clip_txt_(pooled_)?mapper\.",)),
    (Kind.STAGE_B_V1, (r"^in_mapper\.0\.", r"^(out_mapper|byt5_mapper)\.")),
    (Kind.STAGE_B, (r"^clip_mapper\.", r"^embedding\.1\.", r"^clf\.1\.", r"^up_blocks\.0\.")),
    (Kind.STAGE_C, (r"^cond_mapper\.0\.", r"^projection\.", r"^out\.1\.", r"^blocks\.0\.")),
    (Kind.STAGE_A, (r"^in_block\.1\.", r"^out_block\.0\.")),
    (Kind.IMAGE_ENCODER_V1, (r"^backbone\.8\.0\.", r"^mapper\.0\.")),
    (Kind.IMAGE_ENCODER, (r"^backbone\.0\.0\.", r"^mapper\.0\.", r"^mapper\.1\.weight$")),
    (Kind.CASCADE_ENCODER, (r"^(encoder\.)?backbone\.0\.0\.", r"mapper\.1\.running_mean$")),
    (Kind.PREVIEWER, (r"^blocks\.0\.", r"^blocks\.\d+\.running_mean$")),
    (Kind.CONTROLNET, (r"^(control_model\.)?(input_hint_block|controlnet_\w+|zero_convs)\.",)),
    (Kind.FLUX, (r"^(double_blocks|joint_blocks|single_transformer_blocks)\.0\.",)),
    (Kind.FLUX, (r"^transformer_blocks\.0\.", r"^(context_embedder|x_embedder|pos_embed)\.")),
    (Kind.STABLE_DIFFUSION, (r"^(input_blocks|conditioner|first_stage_model|cond_stage_model)\.",)),
    (Kind.STABLE_DIFFUSION, (r"^down_blocks\.0\.resnets\.", r"^time_embedding\.")),
    (Kind.VAE, (r"^(encoder|decoder)\.conv_in\.",)),
    (
        Kind.TEXT_ENCODER,
        (r"(^|\.)token_embedding\.weight$", r"(^|\.)(transformer\.resblocks|encoder\.layers)\.0\."),
    ),
    (Kind.CLIP_VISION, (r"^(vision_model\.|visual\.)",)),
    (Kind.T5, (r"(^|\.)encoder\.block\.0\.layer\.0\.SelfAttention\.",)),
    (Kind.LANGUAGE_MODEL, (r"^(model\.)?(language_model\.)?layers\.0\.self_attn\.",)),
    (Kind.UPSCALER, (r"(^|\.)(conv_first|RRDB_trunk|RDB1|rdb1)\.",)),
    (Kind.EMBEDDING, (r"^(emb_params|clip_[lgh]|<.+>|string_to_param(\..*)?|bundle_emb\..*)$",)),
)

_SINGLE_FILE_PREFIX = "model.diffusion_model."


def detect(names: Iterable[str]) -> Kind:
    """What weights with these names are; names of the original and the diffusers layout."""
    lines = "\n".join(name.removeprefix(_SINGLE_FILE_PREFIX) for name in names)
    for kind, patterns in _SIGNS:
        if all(re.search(pattern, lines, re.MULTILINE) for pattern in patterns):
            return kind
    return Kind.UNKNOWN
