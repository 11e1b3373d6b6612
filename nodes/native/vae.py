"""Stage A as ComfyUI's VAE."""

from typing import Any

import comfy.sd  # pyright: ignore[reportMissingImports]
import torch
from torch import Tensor

from ...wuerstchen_core.errors import WireError
from ...wuerstchen_core.stage_b import VQ_SCALE
from .networks import ComfyStageA
from .residence import ComfyPart


def vae_of(stage_a: ComfyPart[ComfyStageA]) -> Any:
    """A VAE around the part's own weights; its latents are those of our wires, in VQ space.

    Raises WireError for a network whose latents have another scale.
    """
    network = stage_a.get()
    config = network.config
    if config.scale_factor != VQ_SCALE:
        raise WireError(
            f"this Stage A scales latents by {config.scale_factor}, Stage B by {VQ_SCALE}; decode "
            "with Würstchen Stage A Decode, which converts."
        )
    # Each release of ComfyUI gives VAE more fields; its smallest kind brings them all, and what
    # makes it that kind is replaced.
    vae = comfy.sd.VAE(sd={"pixel_space_vae": torch.zeros(())})
    vae.first_stage_model = network
    vae.patcher = stage_a.opened()
    vae.device = network.compute_device
    vae.vae_dtype = network.compute_dtype
    vae.downscale_ratio = vae.upscale_ratio = config.downscale
    vae.latent_channels = config.latent_channels
    vae.process_input = lambda pixels: pixels
    vae.process_output = _clamped
    # ComfyUI's own estimate is an AutoencoderKL's, 16 times as much.
    vae.memory_used_decode = lambda shape, _: network.memory_needed(shape)
    vae.memory_used_encode = lambda shape, _: network.memory_needed(
        (shape[0], shape[1], shape[2] // config.downscale, shape[3] // config.downscale)
    )
    vae.disable_offload = True  # too small to be worth loading in part
    vae.size = None
    vae.model_size()
    return vae


def _clamped(pixels: Tensor) -> Tensor:
    return pixels.clamp_(0, 1)  # in place: ComfyUI ignores what is returned
