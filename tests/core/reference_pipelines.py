"""diffusers' own Würstchen pipelines around given parts, and one run of both."""

import numpy as np
import torch
from diffusers import DDPMWuerstchenScheduler
from diffusers.pipelines.deprecated.wuerstchen import (
    WuerstchenDecoderPipeline,
    WuerstchenPriorPipeline,
)
from PIL import Image


def run_reference(
    prior: WuerstchenPriorPipeline,
    decoder: WuerstchenDecoderPipeline,
    prompt: str,
    negative: str,
    *,
    size: int,
    seed: int,
    steps: int,
    decoder_steps: int,
    cfg: float,
    decoder_cfg: float,
    timesteps: list[float] | None = None,
) -> tuple[torch.Tensor, np.ndarray]:
    """(image embeddings 1×16×h×w, picture H×W×3 in [0, 1]); a generator each, seeded alike."""
    embeddings = prior(
        prompt,
        height=size,
        width=size,
        num_inference_steps=steps,
        timesteps=timesteps,
        guidance_scale=cfg,
        negative_prompt=negative,
        generator=torch.Generator().manual_seed(seed),
        output_type="pt",
    ).image_embeddings
    pictures = decoder(
        embeddings,
        prompt,
        num_inference_steps=decoder_steps,
        guidance_scale=decoder_cfg,
        negative_prompt=negative,
        generator=torch.Generator().manual_seed(seed),
        output_type="np",
    ).images
    return embeddings, pictures[0]


def from_parts(tokenizer, text, prior, decoder_tokenizer, decoder_text, decoder, vqgan):
    """The two pipelines, silent."""
    prior_pipeline = WuerstchenPriorPipeline(
        tokenizer=tokenizer,
        text_encoder=text,
        prior=prior,
        scheduler=DDPMWuerstchenScheduler(),
    )
    decoder_pipeline = WuerstchenDecoderPipeline(
        tokenizer=decoder_tokenizer,
        text_encoder=decoder_text,
        decoder=decoder,
        scheduler=DDPMWuerstchenScheduler(),
        vqgan=vqgan,
    )
    prior_pipeline.set_progress_bar_config(disable=True)
    decoder_pipeline.set_progress_bar_config(disable=True)
    return prior_pipeline, decoder_pipeline


def largest_difference(picture: Image.Image, reference: np.ndarray) -> float:
    """In steps of 1/255, between an 8-bit picture and the reference rounded to 8 bits."""
    expected = (reference * 255).round().astype(int)
    return float(np.abs(np.asarray(picture).astype(int) - expected).max())
