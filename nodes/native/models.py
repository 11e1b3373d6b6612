"""Stage C and Stage B as ComfyUI's MODEL: latent formats, noise schedule, conditions."""

import math
from collections.abc import Sequence
from typing import Any

import comfy.conds as conds  # pyright: ignore[reportMissingImports]
import comfy.latent_formats  # pyright: ignore[reportMissingImports]
import comfy.model_base as model_base  # pyright: ignore[reportMissingImports]
import comfy.model_sampling as model_sampling  # pyright: ignore[reportMissingImports]
import comfy.supported_models_base as supported_models  # pyright: ignore[reportMissingImports]
import torch
from torch import Tensor

from ...wuerstchen_core.errors import WireError
from ...wuerstchen_core.geometry import STAGE_B_CELLS, STAGE_C_CELLS, stage_b_grid
from ...wuerstchen_core.preview import LinearMap
from ...wuerstchen_core.schedule import S, alpha_bar, alpha_bar_of
from ...wuerstchen_core.stage_b import VQ_SCALE
from ...wuerstchen_core.stage_c import from_embedding, to_embedding
from .networks import ComfyStageB, ComfyStageC, Hosted

# Of a CONDITIONING: the Stage C latent that Stage B reads. The name is ComfyUI's own, so that its
# StableCascade_StageB_Conditioning serves too.
STAGE_C_KEY = "stable_cascade_prior"

_EARLIEST = 1e-6  # a time so near 0 that alpha_bar is clamped
_FIRST_ANGLE = S / (1 + S) * math.pi / 2  # of the schedule's cosine, at time 0


def sigma_at(t: float) -> float:
    """ComfyUI's sigma (noise over signal) at a time; 0 at time 0, where sampling ends."""
    signal = alpha_bar(t)
    return math.sqrt((1 - signal) / signal) if t > 0 else 0.0


def time_of(sigma: Tensor) -> Tensor:
    """The time of a sigma: the exact inverse of `sigma_at`, also in float32.

    Near time 1 the schedule stands still; the largest sigma there means time 1.
    """
    # tan(angle) from the squares: acos would lose half the digits near time 0.
    opposite = (sigma.square() + math.sin(_FIRST_ANGLE) ** 2).sqrt()
    angle = torch.atan2(opposite, torch.full_like(sigma, math.cos(_FIRST_ANGLE)))
    t = angle * (2 / math.pi * (1 + S)) - S
    return torch.where(sigma >= sigma_at(1.0) * (1 - 1e-6), torch.ones_like(t), t.clamp(0, 1))


class WuerstchenSampling(model_sampling.ModelSamplingDiscrete, model_sampling.EPS):
    """The schedule of the core; times are those that the networks read, in [0, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.num_timesteps = 10_000
        # Samplers divide by differences of sigmas: the times where alpha_bar is clamped, so that
        # sigma stands still, are left out.
        first = time_of(torch.tensor(sigma_at(_EARLIEST), dtype=torch.float64)).item()
        last = time_of(torch.tensor(sigma_at(1.0) * 0.99999, dtype=torch.float64)).item()
        grid = torch.linspace(first, last, self.num_timesteps, dtype=torch.float64).tolist()
        self.set_sigmas(torch.tensor([*map(sigma_at, grid[:-1]), sigma_at(1.0)]))

    def timestep(self, sigma: Tensor) -> Tensor:
        return time_of(sigma)

    def sigma(self, timestep: Tensor) -> Tensor:
        signal = alpha_bar_of(timestep)
        return ((1 - signal) / signal).sqrt()

    def percent_to_sigma(self, percent: float) -> float:
        """percent: of the way that is done, in [0, 1]."""
        if percent <= 0:
            return math.inf
        return sigma_at(max(0.0, 1 - percent))


class _Format(comfy.latent_formats.LatentFormat):
    """A latent format whose colours become known when a checkpoint or pictures tell them."""

    def show(self, known: LinearMap | None) -> None:
        """Makes ComfyUI's previews show a map of wires' latents; they read the model's own space
        and give -1 to 1."""
        if known is None:
            return
        offset = self.process_out(torch.zeros(1)).item()
        scale = self.process_out(torch.ones(1)).item() - offset
        bias = known.bias + offset * known.weight.sum(axis=0)
        self.latent_rgb_factors = (2 * scale * known.weight).tolist()
        self.latent_rgb_factors_bias = (2 * bias - 1).tolist()


class StageCFormat(_Format):
    """Wires carry embedding space, samplers work on the prior's own."""

    latent_channels = 16
    spacial_downscale_ratio = 42  # 42.67, which ComfyUI cannot say

    def process_in(self, latent: Tensor) -> Tensor:
        return from_embedding(latent)

    def process_out(self, latent: Tensor) -> Tensor:
        return to_embedding(latent)


class StageBFormat(_Format):
    """Wires carry VQ space."""

    latent_channels = 4
    spacial_downscale_ratio = 4
    scale_factor = 1 / VQ_SCALE


class _Model(model_base.BaseModel):
    """A network of ours between ComfyUI's samplers and its memory management."""

    def __init__(self, network: Hosted, latent_format: Any) -> None:
        # FreeU asks for the channels when it patches; when it runs, it is refused in words.
        config = supported_models.BASE(
            {"disable_unet_model_creation": True, "model_channels": latent_format.latent_channels}
        )
        config.latent_format = latent_format
        super().__init__(config, model_base.ModelType.EPS)
        self.diffusion_model = network
        self.model_sampling = WuerstchenSampling()

    def get_dtype(self) -> torch.dtype:
        """What latents and conditions arrive in. The networks cast by themselves; the last step
        of their heads needs the latent in float32."""
        return torch.float32

    def memory_required(self, input_shape: Sequence[int], cond_shapes: Any = None) -> int:
        return self.diffusion_model.memory_needed(input_shape)


class StageCModel(_Model):
    """Stage C."""

    diffusion_model: ComfyStageC

    def __init__(self, network: ComfyStageC) -> None:
        super().__init__(network, StageCFormat())

    def extra_conds(self, **given: Any) -> dict[str, Any]:
        states = _states(given.get("cross_attn"), self.diffusion_model.config.c_cond, "Stage C")
        return {"c_crossattn": conds.CONDRegular(states)}


class StageBModel(_Model):
    """Stage B. Conditions without a Stage C latent read zeros, as the reference's negative does."""

    diffusion_model: ComfyStageB

    def __init__(self, network: ComfyStageB) -> None:
        super().__init__(network, StageBFormat())

    def extra_conds(self, **given: Any) -> dict[str, Any]:
        config, (height, width) = self.diffusion_model.config, given["noise"].shape[-2:]
        embedding = given.get(STAGE_C_KEY)
        if embedding is None and given.get("prompt_type") == "positive":
            raise WireError(
                "this positive conditioning carries no Stage C latent for Stage B to read; send "
                "it through Würstchen Stage B Conditioning."
            )
        if embedding is None:
            cells = (side // STAGE_B_CELLS * STAGE_C_CELLS for side in (height, width))
            embedding = torch.zeros(1, config.effnet_embd, *cells)
        elif embedding.ndim != 4 or embedding.shape[1] != config.effnet_embd:
            raise WireError(
                f"the Stage C latent of this conditioning has the shape {tuple(embedding.shape)}; "
                f"batch×{config.effnet_embd}×height×width is expected."
            )
        elif stage_b_grid((embedding.shape[-2], embedding.shape[-1])) != (height, width):
            raise WireError(
                f"this latent has {height}×{width} cells and the Stage C latent of its "
                f"conditioning {embedding.shape[-2]}×{embedding.shape[-1]}; take both from "
                "Würstchen Stage B Conditioning."
            )
        text = given.get("cross_attn")
        if text is not None and text.shape[1]:
            text = _states(text, config.clip_embd, "Stage B")
        else:
            text = torch.zeros(1, 0, config.clip_embd)
        return {
            "c_crossattn": conds.CONDRegular(text),
            "embedding": conds.CONDRegular(embedding),
        }


def _states(states: Tensor | None, width: int, stage: str) -> Tensor:
    if states is None or states.ndim != 3 or states.shape[-1] != width:
        found = "nothing" if states is None else f"the shape {tuple(states.shape)}"
        raise WireError(
            f"this conditioning has {found}; {stage} reads batch×tokens×{width}. Encode the text "
            f"with the text encoder that belongs to {stage}."
        )
    return states
