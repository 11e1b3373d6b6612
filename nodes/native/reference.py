"""The reference's schedule and sampler for ComfyUI's SamplerCustom nodes."""

from typing import Any, ClassVar

import comfy.model_management as management  # pyright: ignore[reportMissingImports]
import comfy.samplers  # pyright: ignore[reportMissingImports]
import torch
from torch import Tensor

from ...wuerstchen_core.layers import Times
from ...wuerstchen_core.noise import SampleNoise
from ...wuerstchen_core.sampling import StepInfo, sample, start_from
from ...wuerstchen_core.schedule import SCHEDULERS, alpha_bar, times
from .models import sigma_at, time_of
from .networks import EXACT_TIME

CATEGORY = "Würstchen/native"


class Sigmas:
    """Our schedules -> SIGMAS."""

    CATEGORY = CATEGORY
    DESCRIPTION = "The schedules of the Würstchen samplers as SIGMAS for SamplerCustom."
    SEARCH_ALIASES: ClassVar[list[str]] = ["wuerstchen scheduler", "timesteps", "stage c sigmas"]
    RETURN_TYPES = ("SIGMAS",)
    RETURN_NAMES = ("sigmas",)
    OUTPUT_TOOLTIPS = ("steps + 1 values, the last one 0.",)
    FUNCTION = "make"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "steps": (
                    "INT",
                    {"default": 29, "min": 1, "max": 1000, "tooltip": "Steps of the sampler."},
                ),
                "scheduler": (
                    "COMBO",
                    {
                        "options": list(SCHEDULERS),
                        "default": "default",
                        "tooltip": "Where the steps lie. default: two thirds of them in the "
                        "noisiest third (29 is the published list); notebook: the original's "
                        "20 + 10; uniform: evenly, usual for Stage B.",
                    },
                ),
                "denoise": (
                    "FLOAT",
                    {
                        "default": 1.0,
                        "min": 0.0,
                        "max": 1.0,
                        "step": 0.01,
                        "tooltip": "1 starts from noise; less starts from latent_image and "
                        "changes it that much; 0 keeps it.",
                    },
                ),
            }
        }

    def make(self, steps: int, scheduler: str, denoise: float) -> tuple[Tensor]:
        walk = times(scheduler, steps, denoise)
        return (torch.tensor([sigma_at(t) for t in walk], dtype=torch.float32),)


class ReferenceSampler(comfy.samplers.Sampler):
    """The core's `ddpm` behind ComfyUI's interface."""

    def sample(
        self,
        model_wrap: Any,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        callback: Any,
        noise: Tensor,
        latent_image: Tensor | None = None,
        denoise_mask: Tensor | None = None,
        disable_pbar: bool = False,
    ) -> Tensor:
        """sigmas: descending; noise, latent_image: B×C×h×w in the model's space; noise of zeros
        means that the latent carries its own."""
        walk = time_of(sigmas.double().cpu()).tolist()
        own = SampleNoise(extra_args.get("seed", 0) + i for i in range(len(noise)))
        start = own.draw(tuple(noise.shape[1:])).to(noise)
        if not torch.equal(noise[:1], start[:1]):  # a NOISE of another node, or none
            start = noise
        x = _started(latent_image, walk[0], start)
        inpaint = comfy.samplers.KSamplerX0Inpaint(model_wrap, sigmas)
        inpaint.latent_image, inpaint.noise = latent_image, start

        def predict(x: Tensor, t: Times) -> Tensor:
            """(x, t) -> eps, from ComfyUI's (x over signal, sigma) -> x0."""
            time = float(t)  # our sampler gives one for the whole batch
            sigma = sigma_at(time)
            scaled = x * (1 + sigma**2) ** 0.5
            options = extra_args.get("model_options", {})
            exact = {**options.get("transformer_options", {}), EXACT_TIME: time}
            x0 = inpaint(
                scaled,
                x.new_full((len(x),), sigma),
                denoise_mask,
                model_options={**options, "transformer_options": exact},
                seed=extra_args.get("seed"),
            )
            return (scaled - x0) / sigma

        def report(info: StepInfo) -> None:
            management.throw_exception_if_processing_interrupted()
            if callback is not None:
                callback(info.step, info.x0, info.x0, info.steps)

        x = sample(predict, x, walk, "ddpm", own, report)
        if walk[-1] > 0:  # another sampler goes on from here
            return x / alpha_bar(walk[-1]) ** 0.5
        if denoise_mask is not None and latent_image is not None:
            x = x * denoise_mask + latent_image * (1 - denoise_mask)
        return x


def _started(latent: Tensor | None, t: float, noise: Tensor) -> Tensor:
    if latent is not None and not noise.any():
        return latent * alpha_bar(t) ** 0.5
    empty = latent is None or not latent.any()
    return start_from(None if empty and t >= 1 else latent, t, noise)


class ReferenceSamplerNode:
    """The reference's sampler -> SAMPLER."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "The sampler of the published pipelines for SamplerCustom: with Würstchen Sigmas it gives "
        "what the Würstchen samplers give with ddpm and the same seed."
    )
    SEARCH_ALIASES: ClassVar[list[str]] = ["wuerstchen ddpm", "sampler custom"]
    RETURN_TYPES = ("SAMPLER",)
    RETURN_NAMES = ("sampler",)
    OUTPUT_TOOLTIPS = ("Sample i of a batch draws its noise from seed + i.",)
    FUNCTION = "make"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {}}

    def make(self) -> tuple[ReferenceSampler]:
        return (ReferenceSampler(),)


NODES = {
    "WuerstchenSigmas": (Sigmas, "Würstchen Sigmas"),
    "WuerstchenReferenceSampler": (ReferenceSamplerNode, "Würstchen Reference Sampler"),
}
