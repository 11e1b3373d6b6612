"""One function a stage: from what lies on its input wires to what lies on its output wire.

The nodes and the pipeline both call these. Shapes and spaces are those of the wires: Stage C
latents in embedding space (B×16×h×w), Stage B latents in VQ space (B×4×H×W), pictures B×3×H×W
in [0, 1]. Everything returned is float32 on the CPU.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .autoencode import Progress, decode, encode
from .batches import in_parts
from .errors import WireError
from .geometry import stage_b_grid
from .guidance import predictor
from .image_encoder import ImageEncoder, encode_picture
from .memory import samples_at_once
from .noise import SampleNoise
from .offload import with_weights
from .residency import device_of
from .sampling import Callback, sample, start_from
from .schedule import thinned, times
from .stage_a import StageA
from .stage_b import VQ_SCALE, StageB, StageBContext
from .stage_c import StageC, StageCContext, from_embedding, to_embedding


@dataclass(frozen=True)
class SamplerSettings:
    """The settings that both samplers share; the names are those of ComfyUI's KSampler.

    step_cache, guidance_end: see `optimize.Optimization`.
    """

    steps: int
    cfg: float
    sampler_name: str = "ddpm"
    scheduler: str = "default"
    denoise: float = 1.0
    step_cache: float = 0.0
    guidance_end: float = 1.0

    @property
    def guides(self) -> bool:
        """As in the reference, guidance takes part only above a scale of 1."""
        return self.cfg > 1

    @property
    def walk(self) -> list[float]:
        """The times of the model's calls and the one to end at; empty at a strength of 0."""
        return thinned(times(self.scheduler, self.steps, self.denoise), self.step_cache)

    @property
    def guided_above(self) -> float:
        """The time from which on guidance takes no part."""
        walk = times(self.scheduler, self.steps, self.denoise)
        return walk[round(self.guidance_end * (len(walk) - 1))]


@torch.no_grad()
@with_weights
def sample_stage_c(
    stage_c: StageC,
    positive: Tensor,
    negative: Tensor | None,
    latent: Tensor,
    noise: SampleNoise,
    settings: SamplerSettings,
    callback: Callback | None = None,
) -> Tensor:
    """Text states -> the Stage C latent.

    positive, negative: B×T×c_cond or 1×T×c_cond; negative is needed only above cfg 1.
    latent: gives batch and size; its content counts when `settings.denoise` < 1.
    Raises WireError for channels or widths that belong elsewhere.
    """
    config, device, batch = stage_c.config, device_of(stage_c), len(latent)
    _check_latent(latent, config.c_in, "Stage C", "Würstchen Empty Latent or Image Encode")
    walk = settings.walk
    if not walk:
        return latent.float().cpu()
    if settings.guides and negative is None:
        raise WireError(
            f"cfg is {settings.cfg}, which needs a negative conditioning; wire an empty text "
            "to `negative`, or set cfg to 1."
        )

    def prepare(states: Tensor) -> StageCContext:
        return stage_c.prepare(states, walk)

    def run(part: slice, callback: Callback | None) -> Tensor:
        def states(text: Tensor) -> Tensor:
            return _batch_of(text, batch, config.c_cond, "Stage C")[part].to(device)

        model = predictor(
            stage_c,
            prepare,
            (states(positive),),
            (states(negative),) if settings.guides and negative is not None else None,
            settings.cfg,
            settings.guided_above,
        )
        draws = noise.of(part)
        start = draws.draw(tuple(latent.shape[1:]), device)
        x = start_from(from_embedding(latent[part]), walk[0], start)
        return to_embedding(sample(model, x, walk, settings.sampler_name, draws, callback)).cpu()

    return in_parts(run, batch, _at_once(stage_c, latent.shape, settings), callback)


@torch.no_grad()
@with_weights
def sample_stage_b(
    stage_b: StageB,
    embedding: Tensor,
    positive: Tensor | None,
    negative: Tensor | None,
    latent: Tensor | None,
    noise: SampleNoise,
    settings: SamplerSettings,
    callback: Callback | None = None,
) -> Tensor:
    """The Stage C latent (and text) -> the Stage B latent.

    embedding: B×16×h×w, h and w multiples of 3. positive, negative: B×T×clip_embd or None.
    latent: what to start from when `settings.denoise` < 1, else None.
    As in the reference, the unconditional branch of guidance reads a zero embedding.
    Raises WireError for channels, sizes or widths that belong elsewhere.
    """
    config, device, batch = stage_b.config, device_of(stage_b), len(embedding)
    _check_latent(embedding, config.effnet_embd, "Stage C", "Würstchen Stage C Sampler")
    height, width = stage_b_grid((embedding.shape[-2], embedding.shape[-1]))
    if latent is not None:
        _check_latent(latent, config.c_in, "Stage B", "Würstchen Stage A Encode")
        if latent.shape != (batch, config.c_in, height, width):
            raise WireError(
                f"latent_image has the shape {tuple(latent.shape)}; for this Stage C latent "
                f"{(batch, config.c_in, height, width)} is expected."
            )
        latent = latent.float().to(device) / VQ_SCALE
    elif settings.denoise < 1:
        raise WireError(
            f"denoise is {settings.denoise}, which starts from a picture; wire a Stage B latent "
            "to `latent_image`, or set denoise to 1."
        )
    walk = settings.walk
    if not walk:
        assert latent is not None
        return (latent * VQ_SCALE).cpu()

    def prepare(embedding: Tensor, text: Tensor | None) -> StageBContext:
        return stage_b.prepare(embedding, (height, width), text, walk)

    def run(part: slice, callback: Callback | None) -> Tensor:
        def states(text: Tensor | None) -> Tensor | None:
            if text is None:
                return None
            return _batch_of(text, batch, config.clip_embd, "Stage B")[part].to(device)

        own = embedding[part].float().to(device)
        model = predictor(
            stage_b,
            prepare,
            (own, states(positive)),
            (torch.zeros_like(own), states(negative)) if settings.guides else None,
            settings.cfg,
            settings.guided_above,
        )
        draws = noise.of(part)
        start = draws.draw((config.c_in, height, width), device)
        x = start_from(None if latent is None else latent[part], walk[0], start)
        return (sample(model, x, walk, settings.sampler_name, draws, callback) * VQ_SCALE).cpu()

    shape = (batch, config.c_in, height, width)
    return in_parts(run, batch, _at_once(stage_b, shape, settings), callback)


@torch.no_grad()
@with_weights
def decode_pixels(stage_a: StageA, latent: Tensor, progress: Progress | None = None) -> Tensor:
    """Stage B latent in VQ space -> pictures in [0, 1]. Raises WireError for other latents."""
    config = stage_a.config
    _check_latent(latent, config.latent_channels, "Stage B", "Würstchen Stage B Sampler")
    scaled = latent.float() * (config.scale_factor / VQ_SCALE)
    return decode(stage_a, scaled, progress).clamp_(0, 1)


@torch.no_grad()
@with_weights
def encode_pixels(stage_a: StageA, pixels: Tensor, progress: Progress | None = None) -> Tensor:
    """Pictures in [0, 1], sides multiples of 4 -> Stage B latent in VQ space."""
    return encode(stage_a, pixels, progress).mul_(VQ_SCALE / stage_a.config.scale_factor)


@torch.no_grad()
@with_weights
def encode_embedding(encoder: ImageEncoder, pixels: Tensor, grid: tuple[int, int]) -> Tensor:
    """Pictures in [0, 1] -> Stage C latent of the given cells (height, width)."""
    return encode_picture(encoder, pixels, grid).cpu()


def _at_once(network: nn.Module, shape: Sequence[int], settings: SamplerSettings) -> int:
    """How many of the samples fit into memory; guidance runs both conditions of each."""
    return samples_at_once(network, shape, branches=2 if settings.guides else 1)


def _check_latent(latent: Tensor, channels: int, stage: str, source: str) -> None:
    if latent.ndim != 4 or latent.shape[1] != channels:
        raise WireError(
            f"this latent has the shape {tuple(latent.shape)}; a {stage} latent, "
            f"batch×{channels}×height×width, is expected here. It comes from {source}."
        )


def _batch_of(text: Tensor, batch: int, width: int, stage: str) -> Tensor:
    """Text states for each sample; one text serves a whole batch."""
    if text.ndim != 3 or text.shape[-1] != width:
        raise WireError(
            f"this conditioning has the shape {tuple(text.shape)}; {stage} reads "
            f"batch×tokens×{width}. Encode the text with the text encoder that belongs to {stage}."
        )
    if len(text) == batch:
        return text
    if len(text) != 1:
        raise WireError(
            f"there are {len(text)} texts for {batch} latents; give one text, or one a latent."
        )
    return text.expand(batch, -1, -1)
