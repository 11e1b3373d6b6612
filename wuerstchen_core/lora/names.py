"""How LoRA files name what they change, and how they spell each kind's tensors.

Tables only; `read.py` and `match.py` go by them.
"""

import re

# What a tensor's name ends with -> its role. Longer endings come before those that they end with.
ROLES: tuple[tuple[str, str], ...] = (
    # PEFT and diffusers; `default` is the name that PEFT gives its only adapter
    (".lora_A.default.weight", "down"),
    (".lora_B.default.weight", "up"),
    (".lora_A.weight", "down"),
    (".lora_B.weight", "up"),
    (".lora_magnitude_vector.default.weight", "row_magnitude"),
    (".lora_magnitude_vector.weight", "row_magnitude"),
    (".lora_magnitude_vector", "row_magnitude"),
    # kohya, OneTrainer
    (".lora_down.weight", "down"),
    (".lora_up.weight", "up"),
    (".lora_mid.weight", "middle"),
    (".dora_scale", "magnitude"),
    (".alpha", "alpha"),
    # diffusers before November 2023: `to_q_lora` beside `to_q`, in the attention's processor
    ("_lora.down.weight", "down"),
    ("_lora.up.weight", "up"),
    (".lora.down.weight", "down"),
    (".lora.up.weight", "up"),
    (".lora_linear_layer.down.weight", "down"),
    (".lora_linear_layer.up.weight", "up"),
    # LyCORIS, OneTrainer
    *((f".hada_{factor}", f"hada_{factor}") for factor in ("w1_a", "w1_b", "w2_a", "w2_b")),
    *((f".hada_{core}", f"hada_{core}") for core in ("t1", "t2")),
    *((f".lokr_{factor}", f"lokr_{factor}") for factor in ("w1_a", "w1_b", "w2_a", "w2_b")),
    *((f".lokr_{whole}", f"lokr_{whole}") for whole in ("w1", "w2", "t2")),
    # Extracted differences
    (".diff_b", "bias_difference"),
    (".diff", "difference"),
)

# Roles that scale a change and are none themselves.
SCALES = frozenset({"alpha", "magnitude", "row_magnitude"})

# What a module's name begins with, in each part of the model; taken off as often as one fits.
WRAPPERS = ("base_model.model.", "model.diffusion_model.", "diffusion_model.")
DENOISER = ("prior.", "decoder.", "unet.", "lora_prior_unet_", "lora_unet_", "lora_prior_")
DENOISER += ("lora_decoder_", "lycoris_")
TEXT_ENCODER = ("text_encoder.", "lora_prior_te_", "lora_te1_", "lora_te_")
# What other models' modules are called, and the models.
FOREIGN: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (model, re.compile(pattern))
    for model, pattern in (
        ("Stable Cascade", r"(lora_prior_unet_|prior\.)(down|up)_blocks|[._]attn[._]in_proj"),
        ("Flux", r"(double|single)_blocks|single_transformer_blocks"),
        ("Stable Diffusion 3", r"joint_blocks|attn[._]add_[qkv]_proj"),
        ("Stable Diffusion XL", r"lora_te2_|text_encoder_2\.|add_embedding"),
        ("Stable Diffusion XL", r"(input|output)_blocks_\d_1_transformer_blocks_[1-9]"),
        ("Stable Diffusion XL", r"attentions[._]\d[._]transformer_blocks[._][1-9]"),
        ("Stable Diffusion", r"(input|output|middle)_blocks?_\d|attentions[._]\d"),
        ("Wan or another video model", r"blocks[._]\d+[._](self|cross)_attn[._]"),
        ("another transformer", r"transformer_blocks[._]\d|layers[._]\d+[._]attention[._]"),
    )
)
