"""The stages composed, for Python users, tests and benchmarks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from .checkpoints import (
    find_parts,
    load_stage_a,
    load_stage_b,
    load_stage_c,
    load_text_encoder,
)
from .errors import SettingError
from .generate import SamplerSettings, decode_pixels, sample_stage_b, sample_stage_c
from .geometry import Geometry
from .noise import SampleNoise
from .pictures import to_pil
from .sampling import StepInfo
from .stage_a import StageA
from .stage_b import StageB
from .stage_c import StageC
from .text_encoder import TextEncoder

# ("stage_c" or "stage_b", step) after each call of a model; raise from it to cancel.
PipelineCallback = Callable[[str, StepInfo], None]


@dataclass(frozen=True)
class Pipeline:
    """Text to pictures.

    >>> pipe = Pipeline.from_folder("models/wuerstchen-demo")
    >>> pipe("a large red star on a blue background", width=256, height=256)[0].save("star.png")
    """

    stage_c: StageC
    stage_b: StageB
    stage_a: StageA
    prior_text_encoder: TextEncoder
    decoder_text_encoder: TextEncoder

    @classmethod
    def from_folder(
        cls, folder: str | Path, dtype: str = "auto", device: str | torch.device | None = None
    ) -> "Pipeline":
        """Loads what lies side by side in `folder` (see `checkpoints.find_parts`).

        dtype: "auto", "float32", "bfloat16" or "float16". Raises CheckpointError.
        """
        parts = find_parts(Path(folder))
        where = torch.device(device) if device is not None else None
        return cls(
            load_stage_c(parts.require("stage_c"), dtype, where),
            load_stage_b(parts.require("stage_b"), dtype, where),
            load_stage_a(parts.require("stage_a"), dtype, where),
            load_text_encoder(parts.require("prior_text_encoder"), dtype, where),
            load_text_encoder(parts.require("decoder_text_encoder"), dtype, where),
        )

    def __call__(
        self,
        prompt: str | Sequence[str],
        negative_prompt: str = "",
        *,
        width: int = 1024,
        height: int = 1024,
        seed: int | Sequence[int] = 0,
        images_per_prompt: int = 1,
        steps: int = 29,
        cfg: float = 4.0,
        scheduler: str = "default",
        decoder_steps: int = 12,
        decoder_cfg: float = 0.0,
        decoder_scheduler: str = "uniform",
        sampler_name: str = "ddpm",
        callback: PipelineCallback | None = None,
    ) -> list[Image.Image]:
        """`images_per_prompt` pictures for each prompt, in order, width×height px (64 to 4096).

        seed: picture i is seeded `seed + i`, or has its own in a list; the same seed gives the same
        picture in any batch. Each stage draws from the seed anew, as the nodes do.
        Raises SettingError for settings out of range.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        prompts = [text for text in prompts for _ in range(images_per_prompt)]
        seeds = range(seed, seed + len(prompts)) if isinstance(seed, int) else list(seed)
        if not prompts or len(seeds) != len(prompts):
            raise SettingError(
                f"there are {len(prompts)} pictures to make and {len(seeds)} seeds; "
                "give at least one prompt, and one seed or as many as pictures."
            )
        geometry = Geometry(width, height)

        latent = torch.zeros(len(prompts), self.stage_c.config.c_in, *geometry.stage_c)
        embedding = sample_stage_c(
            self.stage_c,
            self.prior_text_encoder.encode(prompts),
            self.prior_text_encoder.encode([negative_prompt]),
            latent,
            SampleNoise(seeds),
            SamplerSettings(steps, cfg, sampler_name, scheduler),
            _named(callback, "stage_c"),
        )
        latent = sample_stage_b(
            self.stage_b,
            embedding,
            self.decoder_text_encoder.encode(prompts),
            self.decoder_text_encoder.encode([negative_prompt]),
            None,
            SampleNoise(seeds),
            SamplerSettings(decoder_steps, decoder_cfg, sampler_name, decoder_scheduler),
            _named(callback, "stage_b"),
        )
        pixels = geometry.crop(decode_pixels(self.stage_a, latent))
        return [to_pil(picture) for picture in pixels]


def _named(callback: PipelineCallback | None, stage: str) -> Callable[[StepInfo], None] | None:
    return None if callback is None else lambda info: callback(stage, info)
