"""The stages composed, for Python users, tests and benchmarks."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from PIL import Image
from torch import Tensor

from .checkpoints import (
    find_parts,
    load_stage_a,
    load_stage_b,
    load_stage_c,
    load_text_encoder,
)
from .embeddings import Embeddings
from .errors import SettingError
from .generate import SamplerSettings, decode_pixels, sample_stage_b, sample_stage_c
from .geometry import Geometry
from .noise import SampleNoise
from .optimize import PLAIN, Optimization
from .pictures import to_pil
from .read_ahead import ReadAhead, ready
from .sampling import StepInfo
from .stage_a import StageA
from .stage_b import StageB
from .stage_c import StageC
from .text_encoder import TextEncoder

# ("stage_c" or "stage_b", step) after each call of a model; raise from it to cancel.
PipelineCallback = Callable[[str, StepInfo], None]

T = TypeVar("T")
Loader = Callable[[Path, str, torch.device | None, Optimization], T]


class Pipeline:
    """Text to pictures.

    >>> pipe = Pipeline.from_folder("models/wuerstchen-demo")
    >>> pipe("a large red star on a blue background", width=256, height=256)[0].save("star.png")
    """

    def __init__(
        self,
        stage_c: StageC | ReadAhead[StageC],
        stage_b: StageB | ReadAhead[StageB],
        stage_a: StageA | ReadAhead[StageA],
        prior_text_encoder: TextEncoder | ReadAhead[TextEncoder],
        decoder_text_encoder: TextEncoder | ReadAhead[TextEncoder],
        optimization: Optimization = PLAIN,
        embeddings: Sequence[Path] = (),
    ) -> None:
        """Parts that are ready, or to be read. Of `optimization` only what steps do counts here;
        the rest has been done to the parts. embeddings: folders of textual inversions."""
        self._stage_c, self._stage_b, self._stage_a = stage_c, stage_b, stage_a
        self._prior_text_encoder = prior_text_encoder
        self._decoder_text_encoder = decoder_text_encoder
        self.optimization = optimization
        self.embeddings = Embeddings(embeddings)

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        dtype: str = "auto",
        device: str | torch.device | None = None,
        optimization: Optimization = PLAIN,
    ) -> "Pipeline":
        """Opens what lies side by side in `folder` (see `checkpoints.find_parts`).

        dtype: "auto", "float32", "bfloat16" or "float16". Raises CheckpointError where a part is
        missing. A part is read when it is first needed, and the next one meanwhile; so a damaged
        one raises CheckpointError only then. Textual inversions are found in `embeddings` there.
        """
        parts = find_parts(Path(folder))
        where = torch.device(device) if device is not None else None

        def later(part: str, load: Loader[T], then: ReadAhead[Any] | None) -> ReadAhead[T]:
            path = parts.require(part)
            return ReadAhead(lambda: load(path, dtype, where, optimization), then)

        stage_a = later("stage_a", load_stage_a, None)
        stage_b = later("stage_b", load_stage_b, stage_a)
        stage_c = later("stage_c", load_stage_c, stage_b)
        decoder_text_encoder = later("decoder_text_encoder", load_text_encoder, stage_c)
        prior_text_encoder = later("prior_text_encoder", load_text_encoder, decoder_text_encoder)
        return cls(
            stage_c,
            stage_b,
            stage_a,
            prior_text_encoder,
            decoder_text_encoder,
            optimization,
            [Path(folder) / "embeddings"],
        )

    @property
    def stage_c(self) -> StageC:
        return ready(self._stage_c)

    @property
    def stage_b(self) -> StageB:
        return ready(self._stage_b)

    @property
    def stage_a(self) -> StageA:
        return ready(self._stage_a)

    @property
    def prior_text_encoder(self) -> TextEncoder:
        return ready(self._prior_text_encoder)

    @property
    def decoder_text_encoder(self) -> TextEncoder:
        return ready(self._decoder_text_encoder)

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
        prompt, negative_prompt: as `prompt.parse` reads them; shorter prompts of a batch are filled
        up with empty chunks.
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

        of_c = self._settings(steps, cfg, sampler_name, scheduler)
        of_b = self._settings(decoder_steps, decoder_cfg, sampler_name, decoder_scheduler)
        # In this order: while one of these works, the next is read.
        text_c = self._encoded(self.prior_text_encoder, prompts, negative_prompt, of_c)
        text_b = self._encoded(self.decoder_text_encoder, prompts, negative_prompt, of_b)
        latent = torch.zeros(len(prompts), self.stage_c.config.c_in, *geometry.stage_c)
        embedding = sample_stage_c(
            self.stage_c,
            *text_c,
            latent,
            SampleNoise(seeds),
            of_c,
            _named(callback, "stage_c"),
        )
        latent = sample_stage_b(
            self.stage_b,
            embedding,
            *text_b,
            None,
            SampleNoise(seeds),
            of_b,
            _named(callback, "stage_b"),
        )
        pixels = geometry.crop(decode_pixels(self.stage_a, latent))
        return [to_pil(picture) for picture in pixels]

    def _settings(
        self, steps: int, cfg: float, sampler_name: str, scheduler: str
    ) -> SamplerSettings:
        return SamplerSettings(
            steps,
            cfg,
            sampler_name,
            scheduler,
            step_cache=self.optimization.step_cache,
            guidance_end=self.optimization.guidance_end,
        )

    def _encoded(
        self,
        encoder: TextEncoder,
        prompts: Sequence[str],
        negative: str,
        settings: SamplerSettings,
    ) -> tuple[Tensor, Tensor | None]:
        """States of each prompt, and of the negative one where guidance reads it; equal texts are
        encoded once."""
        texts = list(dict.fromkeys(prompts))
        groups = [texts, [negative]] if settings.guides else [texts]
        states, *others = encoder.encode_groups(groups, self.embeddings)
        positive = states[[texts.index(text) for text in prompts]]
        return positive, others[0] if others else None


def _named(callback: PipelineCallback | None, stage: str) -> Callable[[StepInfo], None] | None:
    return None if callback is None else lambda info: callback(stage, info)
