"""The samplers of Stage C and Stage B."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor

from ..wuerstchen_core.conditions import Text
from ..wuerstchen_core.errors import WireError
from ..wuerstchen_core.generate import SamplerSettings, sample_stage_b, sample_stage_c
from ..wuerstchen_core.geometry import CANVAS_STEP, Geometry, mask_on_canvas, stage_b_grid
from ..wuerstchen_core.sampling import SAMPLERS
from ..wuerstchen_core.schedule import SCHEDULERS
from ..wuerstchen_core.stage_b import StageB
from ..wuerstchen_core.stage_c import StageC
from . import previews, runtime
from .conditions import texts_of
from .latent import STAGE_B_CHANNELS, Latent, geometry_of, like, noise_for, refuse_v1
from .parts import Part
from .text import Conditioning
from .values import number, text, whole

CATEGORY = "Würstchen/sampling"
MOST_STEPS = 1000


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
            {"default": steps, "min": 1, "max": MOST_STEPS, "tooltip": "Calls of the model."},
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


def _chosen(
    steps: Any, cfg: Any, sampler_name: Any, scheduler: Any, denoise: Any
) -> SamplerSettings:
    """What the widgets say, or what is wired in their place. Raises SettingError."""
    return SamplerSettings(
        whole("steps", steps, 1, MOST_STEPS),
        number("cfg", cfg),
        text("sampler_name", sampler_name),
        text("scheduler", scheduler),
        number("denoise", denoise),
    )


def _settings_for(stage: Part[Any], chosen: SamplerSettings, geometry: Geometry) -> SamplerSettings:
    """The settings with those that come from the nodes between loader and sampler.

    Raises WireError for a seamless picture that would be cut.
    """
    if any(stage.wraps) and geometry.canvas != (geometry.height, geometry.width):
        height, width = geometry.canvas
        raise WireError(
            f"a seamless picture of {geometry.width}×{geometry.height} would be cut at its edges; "
            f"ask for {width}×{height}, or other multiples of {CANVAS_STEP}."
        )
    switches = stage.optimization
    return replace(
        chosen,
        step_cache=switches.step_cache,
        guidance_end=switches.guidance_end,
        guidance=stage.guidance,
        wraps=stage.wraps,
    )


def mask_of(latent: Latent | None, geometry: Geometry) -> Tensor | None:
    """The noise mask of a latent over its canvas; None where all of it is to be sampled."""
    mask = None if latent is None else latent.get("noise_mask")
    return None if mask is None else mask_on_canvas(mask, geometry)


def run_on(shape: Sequence[int], *texts: Sequence[Text] | None) -> Sequence[int]:
    """The shape that the network sees at most: all texts of a sample run in one batch."""
    return (shape[0] * max(1, sum(len(one) for one in texts if one)), *shape[1:])


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
                    {
                        "tooltip": "What to show: a text of the prior's text encoder, or several "
                        "(Conditioning (Combine)) with masks, areas, strengths and time ranges."
                    },
                ),
                "latent_image": (
                    "LATENT",
                    {
                        "tooltip": "Size and batch: Würstchen Empty Latent, or for denoise below "
                        "1 a picture from Würstchen Image Encode. A noise mask on it keeps the "
                        "rest of the picture."
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
        refuse_v1(latent_image)
        latent = latent_image["samples"]
        geometry = geometry_of(latent_image)
        chosen = _chosen(steps, cfg, sampler_name, scheduler, denoise)
        settings = _settings_for(stage_c, chosen, geometry)
        texts = texts_of(positive, "positive", geometry)
        assert texts is not None  # a required input
        avoided = texts_of(negative, "negative", geometry) if settings.guides else None
        shape = run_on(latent.shape, texts, avoided)
        with runtime.running(lambda: stage_c.ready(shape)) as network:
            samples = sample_stage_c(
                network,
                texts,
                avoided,
                latent,
                noise_for(latent_image, seed),
                settings,
                runtime.step_callback(previews.painter(stage_c, latent_image)),
                mask_of(latent_image, geometry),
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
                    {
                        "tooltip": "For denoise below 1: a picture from Würstchen Stage A Encode. "
                        "A noise mask on it keeps the rest of the picture."
                    },
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
        refuse_v1(stage_c_latent)
        embedding = stage_c_latent["samples"]
        geometry = geometry_of(stage_c_latent)
        grid = stage_b_grid((embedding.shape[-2], embedding.shape[-1]))
        chosen = _chosen(steps, cfg, sampler_name, scheduler, denoise)
        settings = _settings_for(stage_b, chosen, geometry)
        texts = texts_of(positive, "positive", geometry)
        avoided = texts_of(negative, "negative", geometry) if settings.guides else None
        shape = run_on((len(embedding), STAGE_B_CHANNELS, *grid), texts, avoided)
        with runtime.running(lambda: stage_b.ready(shape)) as network:
            samples = sample_stage_b(
                network,
                embedding,
                texts,
                avoided,
                None if latent_image is None else latent_image["samples"],
                noise_for(stage_c_latent, seed),
                settings,
                runtime.step_callback(previews.painter(stage_b, stage_c_latent)),
                mask_of(latent_image, geometry),
            )
        made = like(stage_c_latent, samples)
        return (previews.with_origin(made, stage_b, read=stage_c_latent),)


NODES = {
    "WuerstchenStageCSampler": (StageCSampler, "Würstchen Stage C Sampler"),
    "WuerstchenStageBSampler": (StageBSampler, "Würstchen Stage B Sampler"),
}
