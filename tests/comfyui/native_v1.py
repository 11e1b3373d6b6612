"""Cases of `native_runner.py`: Würstchen v1 behind ComfyUI's memory management."""

from typing import Any

import torch
from native_pack import SEED, TEXT, Pack, error


def v1(pack: Pack) -> dict[str, Any]:
    """Text to picture through our nodes, and the same by the core's own loaders."""
    names = pack.nodes["WuerstchenV1LoadPipeline"].RETURN_NAMES
    loaded = pack.all("WuerstchenV1LoadPipeline", folder="wuerstchen-v1", dtype="float32")
    parts = dict(zip(names, loaded, strict=True))
    texts = [
        pack("WuerstchenTextEncode", text_encoder=parts["text_encoder"], text=text)
        for text in (TEXT, "")
    ]
    conditions = dict(zip(("positive", "negative"), texts, strict=True))
    stage_c = {"sampler_name": "ddpm", "scheduler": "uniform", "denoise": 1.0}
    latent = pack(
        "WuerstchenV1StageCSampler", stage_c=parts["stage_c"], latent_image=pack.empty(side=128),
        seed=SEED, steps=4, cfg=3.0, **stage_c, **conditions,
    )  # fmt: skip
    tokens = pack(
        "WuerstchenV1StageBSampler", stage_b=parts["stage_b"], stage_c_latent=latent, seed=SEED,
        steps=3, cfg=2.0, cfg_end=2.0, temperature=1.0, temperature_end=0.6, mode="multinomial",
        denoise=1.0, stage_a=parts["stage_a"], **conditions,
    )  # fmt: skip
    picture = pack("WuerstchenV1StageADecode", stage_a=parts["stage_a"], samples=tokens)
    encoded = pack("WuerstchenV1ImageEncode", image_encoder=parts["image_encoder"], pixels=picture)

    checkpoints, generate = pack.core("checkpoints"), pack.core("generate")
    tokens_of = pack.core("v1.generate")
    settings = pack.core("v1.sampling").TokenSettings(steps=3)
    found = checkpoints.find_parts_v1(pack.base / "models" / "wuerstchen" / "wuerstchen-v1")
    own = {
        part: getattr(checkpoints, f"load_{part}_v1")(found.require(part), "float32")
        for part in ("stage_c", "stage_b", "image_encoder")
    }
    noise = pack.core("noise").SampleNoise([SEED])
    positive, negative = (text[0][0] for text in texts)
    expected = generate.sample_stage_c(
        own["stage_c"], positive, negative, torch.zeros(1, 16, 3, 3), noise,
        generate.SamplerSettings(4, 3.0, scheduler="uniform"),
    )  # fmt: skip
    noise = pack.core("noise").SampleNoise([SEED])
    drawn = tokens_of.sample_tokens(
        own["stage_b"], expected, positive, negative, None, noise, settings
    )
    pixels = picture.movedim(-1, 1)
    return {
        "stage_c": error(latent["samples"], expected),
        "stage_b": (tokens["samples"] == drawn).float().mean().item(),
        "image_encoder": error(
            encoded["samples"], generate.encode_embedding(own["image_encoder"], pixels, (3, 3))
        ),
        "picture": list(picture.shape),
        "hosted": type(parts["stage_b"].get()).__name__,
    }


CASES = (v1,)
