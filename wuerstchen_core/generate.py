"""One function a stage: from what lies on its input wires to what lies on its output wire.

The nodes and the pipeline both call these. Shapes and spaces are those of the wires: Stage C
latents in embedding space (B×16×h×w), Stage B latents in VQ space (B×4×H×W), pictures B×3×H×W
in [0, 1]. Everything returned is float32 on the CPU.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .autoencode import Progress, decode, encode
from .batches import in_parts
from .conditions import Branch, Condition, Target, Texts, branch_of, on_grid
from .errors import WireError
from .geometry import stage_b_grid
from .guidance import Guidance, Predictor
from .image_encoder import ImageEncoder, encode_picture
from .layers import NO_WRAPS, Wraps
from .memory import samples_at_once
from .noise import SampleNoise
from .offload import with_weights
from .residency import device_of
from .sampling import Callback, Known, sample, start_from
from .schedule import thinned, times
from .stage_a import StageA
from .stage_b import VQ_SCALE, StageB, StageBContext
from .stage_c import StageC, StageCContext, from_embedding, to_embedding


@dataclass(frozen=True)
class SamplerSettings:
    """The settings that both samplers share; the names are those of ComfyUI's KSampler.

    step_cache, guidance_end: see `optimize.Optimization`. wraps: the edges at which the picture
    goes on at the opposite one.
    """

    steps: int
    cfg: float
    sampler_name: str = "ddpm"
    scheduler: str = "default"
    denoise: float = 1.0
    step_cache: float = 0.0
    guidance_end: float = 1.0
    guidance: Guidance = Guidance()
    wraps: Wraps = NO_WRAPS

    @property
    def guides(self) -> bool:
        """As in the reference, guidance takes part only above a scale of 1."""
        return self.cfg > 1

    @property
    def walk(self) -> list[float]:
        """The times of the model's calls and the one to end at; empty at a strength of 0."""
        return thinned(times(self.scheduler, self.steps, self.denoise), self.step_cache)

    @property
    def guided(self) -> tuple[float, float]:
        """Guidance takes part at times up to the first and above the second."""
        walk = times(self.scheduler, self.steps, self.denoise)
        shares = (self.guidance.start, min(self.guidance.end, self.guidance_end))
        first, end = (walk[round(share * (len(walk) - 1))] for share in shares)
        return first, end


@torch.no_grad()
@with_weights
def sample_stage_c(
    stage_c: StageC,
    positive: Texts,
    negative: Texts | None,
    latent: Tensor,
    noise: SampleNoise,
    settings: SamplerSettings,
    callback: Callback | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Text states -> the Stage C latent.

    positive, negative: states B×T×c_cond or 1×T×c_cond, or several texts; negative is needed only
    above cfg 1. latent: gives batch and size; its content counts when `settings.denoise` < 1, and
    where the mask keeps it.
    mask: 1 or B×1×H×W in [0, 1] over the whole canvas, any size; 1 = sample, 0 = keep.
    Raises WireError for channels, widths or masks that belong elsewhere.
    """
    config = stage_c.config
    check_latent(latent, "Stage C", config.c_in)
    walk = settings.walk
    if not walk:
        return latent.float().cpu()
    if settings.guides and negative is None:
        raise WireError(
            f"cfg is {settings.cfg}, which needs a negative conditioning; wire an empty text "
            "to `negative`, or set cfg to 1."
        )
    grid = (latent.shape[-2], latent.shape[-1])
    target = Target("Stage C", len(latent), config.c_cond, grid, device_of(stage_c))
    branches = [branch_of(positive, "positive", target, lambda states: (states,))]
    scales: list[float] = []
    if settings.guides and negative is not None:
        branches.insert(0, branch_of(negative, "negative", target, lambda states: (states,)))
        scales.append(settings.cfg)

    def prepare(states: Tensor) -> StageCContext:
        return stage_c.prepare(states, walk, settings.wraps)

    run = _Run(stage_c, prepare, branches, scales, tuple(latent.shape), walk, settings)
    own_space = from_embedding(latent, type(config))
    return to_embedding(run.sample(own_space, mask, noise, callback), type(config))


@torch.no_grad()
@with_weights
def sample_stage_b(
    stage_b: StageB,
    embedding: Tensor,
    positive: Texts | None,
    negative: Texts | None,
    latent: Tensor | None,
    noise: SampleNoise,
    settings: SamplerSettings,
    callback: Callback | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """The Stage C latent (and text) -> the Stage B latent.

    embedding: B×16×h×w, h and w multiples of 3. positive, negative: B×T×clip_embd, or several
    texts, or None. latent: what to start from when `settings.denoise` < 1, and to keep where the
    mask says so, else None. mask: as for Stage C.
    As in the reference, the unconditional branch of guidance reads a zero embedding. With
    `Guidance.embedding_scale` there is one between, of the embedding without the text.
    Raises WireError for channels, sizes, widths or masks that belong elsewhere.
    """
    config, batch = stage_b.config, len(embedding)
    check_latent(embedding, "Stage C", config.effnet_embd)
    size = stage_b_grid((embedding.shape[-2], embedding.shape[-1]))
    shape = (batch, config.c_in, *size)
    if latent is not None:
        check_latent(latent, "Stage B", config.c_in)
        if latent.shape != shape:
            raise WireError(
                f"latent_image has the shape {tuple(latent.shape)}; for this Stage C latent "
                f"{shape} is expected."
            )
        latent = latent.float() / VQ_SCALE
    elif settings.denoise < 1:
        raise WireError(
            f"denoise is {settings.denoise}, which starts from a picture; wire a Stage B latent "
            "to `latent_image`, or set denoise to 1."
        )
    walk = settings.walk
    if not walk:
        assert latent is not None
        return (latent * VQ_SCALE).cpu()
    target = Target("Stage B", batch, config.clip_embd, size, device_of(stage_b))
    own = embedding.float().to(target.device)

    def branch(embedding: Tensor, texts: Texts | None, name: str) -> Branch:
        if texts is None:
            return [Condition((embedding, None))]
        return branch_of(texts, name, target, lambda states: (embedding, states))

    branches, scales = [branch(own, positive, "positive")], []
    apart = settings.guidance.embedding_scale
    if settings.guides or apart is not None:
        # The embedding's axis alone is one between two branches of the same text.
        beside = (negative, "negative") if settings.guides else (positive, "positive")
        branches.insert(0, branch(torch.zeros_like(own), *beside))
        scales.append(settings.cfg if apart is None else apart)
    if settings.guides and apart is not None:
        branches.insert(1, branch(own, negative, "negative"))
        scales.append(settings.cfg)

    def prepare(embedding: Tensor, text: Tensor | None) -> StageBContext:
        return stage_b.prepare(embedding, size, text, walk, settings.wraps)

    run = _Run(stage_b, prepare, branches, scales, shape, walk, settings)
    return run.sample(latent, mask, noise, callback) * VQ_SCALE


@dataclass(frozen=True)
class _Run:
    """One stage's way from noise to latent, in its own space."""

    network: StageC | StageB
    prepare: Callable[..., Any]
    branches: Sequence[Branch]
    scales: Sequence[float]
    shape: tuple[int, ...]  # of the latent, B×C×h×w
    walk: Sequence[float]
    settings: SamplerSettings

    def sample(
        self,
        latent: Tensor | None,
        mask: Tensor | None,
        noise: SampleNoise,
        callback: Callback | None,
    ) -> Tensor:
        """latent: what to start from and to keep. In as many parts as memory asks for."""
        device, batch = device_of(self.network), self.shape[0]
        if mask is not None:
            mask = on_grid(mask, (self.shape[-2], self.shape[-1]), batch).to(device)
            if latent is None:
                raise WireError(
                    "there is a mask and no picture to keep; wire a Stage B latent that carries "
                    "the mask to `latent_image`."
                )

        def run(part: slice, callback: Callback | None) -> Tensor:
            model = Predictor(
                self.network,
                self.prepare,
                [[one.of(part) for one in branch] for branch in self.branches],
                self.scales,
                self.settings.guidance,
                self.settings.guided,
            )
            draws = noise.of(part)
            start = draws.draw(self.shape[1:], device)
            own = None if latent is None else latent[part].float().to(device)
            known = None if own is None or mask is None else Known(own, mask[part])
            x = start_from(own, self.walk[0], start)
            name = self.settings.sampler_name
            return sample(model, x, self.walk, name, draws, callback, known).cpu()

        together = sum(map(len, self.branches))
        most = samples_at_once(self.network, self.shape, together)
        return in_parts(run, batch, most, callback)


@torch.no_grad()
@with_weights
def decode_pixels(
    stage_a: StageA,
    latent: Tensor,
    progress: Progress | None = None,
    wraps: Wraps = NO_WRAPS,
) -> Tensor:
    """Stage B latent in VQ space -> pictures in [0, 1]. Raises WireError for other latents.

    wraps: the edges at which the picture goes on at the opposite one.
    """
    config = stage_a.config
    check_latent(latent, "Stage B", config.latent_channels)
    scaled = latent.float() * (config.scale_factor / VQ_SCALE)
    return decode(stage_a, scaled, progress, wraps).clamp_(0, 1)


@torch.no_grad()
@with_weights
def encode_pixels(
    stage_a: StageA,
    pixels: Tensor,
    progress: Progress | None = None,
    wraps: Wraps = NO_WRAPS,
) -> Tensor:
    """Pictures in [0, 1], sides multiples of 4 -> Stage B latent in VQ space; wraps: as above."""
    return encode(stage_a, pixels, progress, wraps).mul_(VQ_SCALE / stage_a.config.scale_factor)


@torch.no_grad()
@with_weights
def encode_embedding(encoder: ImageEncoder, pixels: Tensor, grid: tuple[int, int]) -> Tensor:
    """Pictures in [0, 1] -> Stage C latent of the given cells (height, width)."""
    return encode_picture(encoder, pixels, grid).cpu()


_SOURCES = {
    "Stage C": "Würstchen Empty Latent, Image Encode or Stage C Sampler",
    "Stage B": "Würstchen Stage A Encode or Stage B Sampler",
}


def check_latent(latent: Tensor, stage: str, channels: int) -> None:
    """Raises WireError for what is no latent of this stage."""
    if latent.ndim == 4 and latent.shape[1] == 1 < channels:
        raise WireError(
            f"this latent holds Würstchen v1's tokens, and a {stage} latent of {channels} channels "
            "is expected here; give it to the Würstchen v1 nodes."
        )
    if latent.ndim != 4 or latent.shape[1] != channels:
        raise WireError(
            f"this latent has the shape {tuple(latent.shape)}; a {stage} latent, "
            f"batch×{channels}×height×width, is expected here. It comes from {_SOURCES[stage]}."
        )
