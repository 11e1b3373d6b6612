"""The samplers of Stage C and Stage B."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor

from ..wuerstchen_core.errors import WireError
from ..wuerstchen_core.generate import SamplerSettings, sample_stage_b, sample_stage_c
from ..wuerstchen_core.geometry import stage_b_grid
from ..wuerstchen_core.sampling import SAMPLERS
from ..wuerstchen_core.schedule import SCHEDULERS
from ..wuerstchen_core.stage_b import StageB
from ..wuerstchen_core.stage_c import StageC
from . import previews, runtime
from .latent import STAGE_B_CHANNELS, Latent, like, noise_for, samples_of
from .parts import Part
from .text import Conditioning

log = logging.getLogger(__name__)

CATEGORY = "Würstchen/sampling"

# What stock nodes write beside the states to limit where and when they count.
_UNREAD = {"area", "mask", "strength", "start_percent", "end_percent"}


def _settings(steps: int, cfg: float, scheduler: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """The widgets of both samplers, with each stage's own defaults."""
    return {
        "seed": (
            "INT",
            {
                "default": 0,
                "min": 0,
                "max": 2**64 - 1,
                "control_after_generate": True,
                "tooltip": "Picture i of a batch is seeded with seed + i, so it can be made again "
                "alone.",
            },
        ),
        "steps": (
            "INT",
            {"default": steps, "min": 1, "max": 1000, "tooltip": "Calls of the model."},
        ),
        "cfg": (
            "FLOAT",
            {
                "default": cfg,
                "min": 0.0,
                "max": 100.0,
                "step": 0.1,
                "round": 0.01,
                "tooltip": "Guidance scale: how strongly to follow the text. 1 or less turns it "
                "off, which halves the work.",
            },
        ),
        "sampler_name": (
            "COMBO",
            {
                "options": list(SAMPLERS),
                "default": "ddpm",
                "tooltip": "ddpm is the reference and adds noise on the way, as dpmpp_2m_sde does; "
                "ddim, dpmpp_2m and unipc add none.",
            },
        ),
        "scheduler": (
            "COMBO",
            {
                "options": list(SCHEDULERS),
                "default": scheduler,
                "tooltip": "Where the steps lie. default: two thirds of them in the noisiest "
                "third (29 is the published list); notebook: the original's 20 + 10; uniform: "
                "evenly.",
            },
        ),
        "denoise": (
            "FLOAT",
            {
                "default": 1.0,
                "min": 0.0,
                "max": 1.0,
                "step": 0.01,
                "tooltip": "1 starts from noise; less starts from latent_image and changes it "
                "that much; 0 keeps it.",
            },
        ),
    }


def _states(conditioning: Conditioning | None, name: str) -> Tensor | None:
    """The text states of a conditioning: B×T×D, or None when nothing is wired."""
    if conditioning is None:
        return None
    if len(conditioning) != 1:
        raise WireError(
            f"`{name}` holds {len(conditioning)} conditionings; the Würstchen samplers read one. "
            "Use Conditioning (Average) or (Concat) instead of (Combine)."
        )
    states, options = conditioning[0]
    ignored = sorted(_UNREAD & options.keys())
    if ignored:
        log.warning("`%s` carries %s, which is not read", name, ", ".join(ignored))
    return states


def _optimized(settings: SamplerSettings, stage: Part[Any]) -> SamplerSettings:
    """The settings with those that come from the stage's own switches."""
    switches = stage.optimization
    return replace(settings, step_cache=switches.step_cache, guidance_end=switches.guidance_end)


def _run_on(shape: Sequence[int], settings: SamplerSettings) -> Sequence[int]:
    """The shape that the network sees: guidance runs both conditions in one batch."""
    return (shape[0] * 2, *shape[1:]) if settings.guides else shape


class StageCSampler:
    """Text -> Stage C latent."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Stage C, the prior: from text to the small latent that decides what the picture shows."
    )
    SEARCH_ALIASES: ClassVar[list[str]] = ["wuerstchen prior", "ksampler", "stage c"]
    RETURN_TYPES = ("LATENT",)
    RETURN_NAMES = ("stage_c_latent",)
    OUTPUT_TOOLTIPS = ("The Stage C latent, batch×16×height×width; Stage B reads it.",)
    FUNCTION = "sample"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        widgets = _settings(steps=29, cfg=4.0, scheduler="default")
        return {
            "required": {
                "stage_c": ("WUERSTCHEN_STAGE_C", {"tooltip": "From a Würstchen loader."}),
                "positive": (
                    "CONDITIONING",
                    {"tooltip": "What to show: a text of the prior's text encoder."},
                ),
                "latent_image": (
                    "LATENT",
                    {
                        "tooltip": "Size and batch: Würstchen Empty Latent, or for denoise below "
                        "1 a picture from Würstchen Image Encode."
                    },
                ),
                **widgets,
            },
            "optional": {
                "negative": (
                    "CONDITIONING",
                    {"tooltip": "What to avoid; wire an empty text if nothing. Read above cfg 1."},
                ),
            },
        }

    def sample(
        self,
        stage_c: Part[StageC],
        positive: Conditioning,
        latent_image: Latent,
        seed: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        denoise: float,
        negative: Conditioning | None = None,
    ) -> tuple[Latent]:
        positive_states = _states(positive, "positive")
        assert positive_states is not None  # a required input
        chosen = SamplerSettings(steps, cfg, sampler_name, scheduler, denoise)
        settings = _optimized(chosen, stage_c)
        latent = samples_of(latent_image)
        with runtime.running(lambda: stage_c.ready(_run_on(latent.shape, settings))) as network:
            samples = sample_stage_c(
                network,
                positive_states,
                _states(negative, "negative"),
                latent,
                noise_for(latent_image, seed),
                settings,
                runtime.step_callback(previews.painter(stage_c, latent_image)),
            )
        return (previews.with_origin(like(latent_image, samples), stage_c),)


class StageBSampler:
    """Stage C latent -> Stage B latent."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Stage B, the decoder: from the Stage C latent to the latent of the VQGAN. "
        "A text is optional."
    )
    SEARCH_ALIASES: ClassVar[list[str]] = ["wuerstchen decoder", "ksampler", "stage b"]
    RETURN_TYPES = ("LATENT",)
    RETURN_NAMES = ("stage_b_latent",)
    OUTPUT_TOOLTIPS = ("The Stage B latent, batch×4×height×width; Stage A decodes it.",)
    FUNCTION = "sample"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        widgets = _settings(steps=12, cfg=0.0, scheduler="uniform")
        return {
            "required": {
                "stage_b": ("WUERSTCHEN_STAGE_B", {"tooltip": "From a Würstchen loader."}),
                "stage_c_latent": (
                    "LATENT",
                    {"tooltip": "What the picture shows: from Stage C, or Würstchen Image Encode."},
                ),
                **widgets,
            },
            "optional": {
                "positive": (
                    "CONDITIONING",
                    {"tooltip": "A text of the decoder's text encoder; may stay unwired."},
                ),
                "negative": (
                    "CONDITIONING",
                    {"tooltip": "What to avoid; read above cfg 1."},
                ),
                "latent_image": (
                    "LATENT",
                    {"tooltip": "For denoise below 1: a picture from Würstchen Stage A Encode."},
                ),
            },
        }

    def sample(
        self,
        stage_b: Part[StageB],
        stage_c_latent: Latent,
        seed: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        denoise: float,
        positive: Conditioning | None = None,
        negative: Conditioning | None = None,
        latent_image: Latent | None = None,
    ) -> tuple[Latent]:
        chosen = SamplerSettings(steps, cfg, sampler_name, scheduler, denoise)
        settings = _optimized(chosen, stage_b)
        embedding = samples_of(stage_c_latent)
        grid = stage_b_grid((embedding.shape[-2], embedding.shape[-1]))
        shape = (len(embedding), STAGE_B_CHANNELS, *grid)
        with runtime.running(lambda: stage_b.ready(_run_on(shape, settings))) as network:
            samples = sample_stage_b(
                network,
                embedding,
                _states(positive, "positive"),
                _states(negative, "negative"),
                None if latent_image is None else samples_of(latent_image),
                noise_for(stage_c_latent, seed),
                settings,
                runtime.step_callback(previews.painter(stage_b, stage_c_latent)),
            )
        made = like(stage_c_latent, samples)
        return (previews.with_origin(made, stage_b, read=stage_c_latent),)


NODES = {
    "WuerstchenStageCSampler": (StageCSampler, "Würstchen Stage C Sampler"),
    "WuerstchenStageBSampler": (StageBSampler, "Würstchen Stage B Sampler"),
}
