"""One function a stage: from what lies on its input wires to what lies on its output wire.

The nodes and the pipeline both call these. Shapes and spaces are those of the wires: Stage C
latents in embedding space (B×16×h×w), Stage B latents in VQ space (B×4×H×W), pictures B×3×H×W
in [0, 1]. Everything returned is float32 on the CPU.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import WireError
from .geometry import stage_b_grid
from .guidance import Predict, guided, guided_separately, plain
from .image_encoder import ImageEncoder, encode_picture
from .noise import SampleNoise
from .residency import device_of
from .sampling import Callback, sample, start_from
from .schedule import times
from .stage_a import StageA
from .stage_b import VQ_SCALE, StageB, StageBContext
from .stage_c import StageC, from_embedding, to_embedding


@dataclass(frozen=True)
class SamplerSettings:
    """The settings that both samplers share; the names are those of ComfyUI's KSampler."""

    steps: int
    cfg: float
    sampler_name: str = "ddpm"
    scheduler: str = "default"
    denoise: float = 1.0

    @property
    def guides(self) -> bool:
        """As in the reference, guidance takes part only above a scale of 1."""
        return self.cfg > 1


@torch.no_grad()
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
    walk = times(settings.scheduler, settings.steps, settings.denoise)
    if not walk:
        return latent.float().cpu()
    states = _batch_of(positive, batch, config.c_cond, "Stage C").to(device)
    if settings.guides:
        if negative is None:
            raise WireError(
                f"cfg is {settings.cfg}, which needs a negative conditioning; wire an empty text "
                "to `negative`, or set cfg to 1."
            )
        other = _batch_of(negative, batch, config.c_cond, "Stage C").to(device)
        if other.shape == states.shape:
            model = guided(stage_c, stage_c.prepare(torch.cat([states, other]), walk), settings.cfg)
        else:
            model = guided_separately(
                plain(stage_c, stage_c.prepare(states, walk)),
                plain(stage_c, stage_c.prepare(other, walk)),
                settings.cfg,
            )
    else:
        model = plain(stage_c, stage_c.prepare(states, walk))
    start = noise.draw(tuple(latent.shape[1:])).to(device)
    x = start_from(from_embedding(latent), walk[0], start)
    return to_embedding(sample(model, x, walk, settings.sampler_name, noise, callback)).cpu()


@torch.no_grad()
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
    walk = times(settings.scheduler, settings.steps, settings.denoise)
    if not walk:
        assert latent is not None
        return (latent * VQ_SCALE).cpu()

    def prepare(embedding: Tensor, text: Tensor | None) -> StageBContext:
        return stage_b.prepare(embedding, (height, width), text, walk)

    model = _stage_b_model(stage_b, prepare, embedding, positive, negative, settings)
    start = noise.draw((config.c_in, height, width)).to(device)
    x = start_from(latent, walk[0], start)
    return (sample(model, x, walk, settings.sampler_name, noise, callback) * VQ_SCALE).cpu()


def _stage_b_model(
    stage_b: StageB,
    prepare: Callable[[Tensor, Tensor | None], StageBContext],
    embedding: Tensor,
    positive: Tensor | None,
    negative: Tensor | None,
    settings: SamplerSettings,
) -> Predict:
    device, width = device_of(stage_b), stage_b.config.clip_embd
    embedding = embedding.float().to(device)

    def states(text: Tensor | None) -> Tensor | None:
        if text is None:
            return None
        return _batch_of(text, len(embedding), width, "Stage B").to(device)

    text, other = states(positive), states(negative)
    if not settings.guides:
        return plain(stage_b, prepare(embedding, text))
    nothing = torch.zeros_like(embedding)
    if text is None and other is None:
        both = torch.cat([embedding, nothing])
        return guided(stage_b, prepare(both, None), settings.cfg)
    if text is not None and other is not None and text.shape == other.shape:
        both = torch.cat([embedding, nothing])
        return guided(stage_b, prepare(both, torch.cat([text, other])), settings.cfg)
    return guided_separately(
        plain(stage_b, prepare(embedding, text)),
        plain(stage_b, prepare(nothing, other)),
        settings.cfg,
    )


@torch.no_grad()
def decode_pixels(stage_a: StageA, latent: Tensor) -> Tensor:
    """Stage B latent in VQ space -> pictures in [0, 1]. Raises WireError for other latents."""
    config = stage_a.config
    _check_latent(latent, config.latent_channels, "Stage B", "Würstchen Stage B Sampler")
    scaled = latent.float().to(device_of(stage_a)) * (config.scale_factor / VQ_SCALE)
    return stage_a.decode(scaled).clamp(0, 1).cpu()


@torch.no_grad()
def encode_pixels(stage_a: StageA, pixels: Tensor) -> Tensor:
    """Pictures in [0, 1], sides multiples of 4 -> Stage B latent in VQ space."""
    latent = stage_a.encode(pixels.float().to(device_of(stage_a)))
    return (latent * (VQ_SCALE / stage_a.config.scale_factor)).cpu()


@torch.no_grad()
def encode_embedding(encoder: ImageEncoder, pixels: Tensor, grid: tuple[int, int]) -> Tensor:
    """Pictures in [0, 1] -> Stage C latent of the given cells (height, width)."""
    return encode_picture(encoder, pixels, grid).cpu()


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
