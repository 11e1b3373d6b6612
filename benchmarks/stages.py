"""What is measured: a step or a pass of each stage, and the whole picture, as both sides run it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from measure import operations
from PIL import Image
from published import Pipelines, Reference
from torch import Tensor

from comfyui_wuerstchen.wuerstchen_core.generate import decode_pixels, encode_pixels
from comfyui_wuerstchen.wuerstchen_core.geometry import Geometry
from comfyui_wuerstchen.wuerstchen_core.pipeline import Pipeline
from comfyui_wuerstchen.wuerstchen_core.residency import device_of
from comfyui_wuerstchen.wuerstchen_core.schedule import times
from comfyui_wuerstchen.wuerstchen_core.stage_c import to_embedding

STEPS, DECODER_STEPS, CFG = 29, 12, 4.0
TOKENS = 77
STAGE_C, STAGE_B, DECODE, ENCODE = (
    "Stage C step",
    "Stage B step",
    "Stage A decode",
    "Stage A encode",
)
PROMPT, NEGATIVE = "a large red star on the left on a white background", ""

Run = Callable[[], Tensor]


@dataclass(frozen=True)
class Request:
    """Square pictures of `side` px."""

    side: int
    batch: int

    def __str__(self) -> str:
        return f"{self.side}² ×{self.batch}"

    @property
    def geometry(self) -> Geometry:
        return Geometry(self.side, self.side)

    def noise(self, *shape: int) -> Tensor:
        """The same numbers for the same shape."""
        return torch.randn(self.batch, *shape, generator=torch.Generator().manual_seed(0))


@dataclass(frozen=True)
class Case:
    """A stage's work on one request.

    ours, theirs: prepare what all steps share, then give the run to measure. Both see the networks
    as they are at that moment. count: runs a picture.
    """

    what: str
    count: int
    ours: Callable[[Pipeline], Run]
    theirs: Callable[[Reference], Run]


def cases(request: Request) -> list[Case]:
    return [_stage_c(request), _stage_b(request), _decode(request), _encode(request)]


def _stage_c(request: Request) -> Case:
    walk = times("default", STEPS)
    t = walk[STEPS // 2]

    def text(width: int) -> Tensor:
        return torch.cat([request.noise(TOKENS, width), request.noise(TOKENS, width) * 0.5])

    def ours(pipeline: Pipeline) -> Run:
        stage, device = pipeline.stage_c, device_of(pipeline.stage_c)
        x = request.noise(stage.config.c_in, *request.geometry.stage_c).to(device)
        context = stage.prepare(text(stage.config.c_cond).to(device), walk)

        def run() -> Tensor:
            conditional, other = stage(torch.cat([x, x]), t, context).chunk(2)
            return torch.lerp(other, conditional, CFG)

        return run

    def theirs(reference: Reference) -> Run:
        prior, device = reference.prior, reference.device
        x = request.noise(prior.config.c_in, *request.geometry.stage_c).to(device, prior.dtype)
        states = text(prior.config.c_cond).to(device, prior.dtype)
        ratio = torch.full((2 * request.batch,), t).to(device, prior.dtype)

        def run() -> Tensor:
            conditional, other = prior(torch.cat([x] * 2), r=ratio, c=states).chunk(2)
            return torch.lerp(other, conditional, CFG)

        return run

    return Case(STAGE_C, STEPS, ours, theirs)


def _stage_b(request: Request) -> Case:
    walk = times("uniform", DECODER_STEPS)
    t = walk[DECODER_STEPS // 2]
    grid = request.geometry.stage_b

    def embedding(channels: int) -> Tensor:
        return to_embedding(request.noise(channels, *request.geometry.stage_c))

    def ours(pipeline: Pipeline) -> Run:
        stage, device = pipeline.stage_b, device_of(pipeline.stage_b)
        config = stage.config
        x = request.noise(config.c_in, *grid).to(device)
        text = request.noise(TOKENS, config.clip_embd).to(device)
        context = stage.prepare(embedding(config.effnet_embd).to(device), grid, text, walk)
        return lambda: stage(x, t, context)

    def theirs(reference: Reference) -> Run:
        decoder, device = reference.decoder, reference.device
        config = decoder.config

        def cast(value: Tensor) -> Tensor:
            return value.to(device, decoder.dtype)

        x = cast(request.noise(config.c_in, *grid))
        effnet = cast(embedding(config.effnet_embd))
        clip = cast(request.noise(TOKENS, config.clip_embd))
        ratio = cast(torch.full((request.batch,), t))
        return lambda: decoder(x, r=ratio, effnet=effnet, clip=clip)

    return Case(STAGE_B, DECODER_STEPS, ours, theirs)


def _decode(request: Request) -> Case:
    def latent(channels: int) -> Tensor:
        return 0.4 * request.noise(channels, *request.geometry.stage_b)

    def ours(pipeline: Pipeline) -> Run:
        x = latent(pipeline.stage_a.config.latent_channels).to(device_of(pipeline.stage_a))
        return lambda: decode_pixels(pipeline.stage_a, x)

    def theirs(reference: Reference) -> Run:
        vqgan = reference.vqgan
        x = latent(vqgan.config.latent_channels).to(reference.device, vqgan.dtype)
        return lambda: _on_host(vqgan.decode(x).sample.clamp(0, 1))

    return Case(DECODE, 1, ours, theirs)


def _encode(request: Request) -> Case:
    def pixels() -> Tensor:
        return request.noise(3, *request.geometry.canvas).sigmoid()

    def ours(pipeline: Pipeline) -> Run:
        x = pixels().to(device_of(pipeline.stage_a))
        return lambda: encode_pixels(pipeline.stage_a, x)

    def theirs(reference: Reference) -> Run:
        x = pixels().to(reference.device, reference.vqgan.dtype)
        return lambda: _on_host(reference.vqgan.encode(x).latents)

    return Case(ENCODE, 0, ours, theirs)


def _on_host(result: Tensor) -> Tensor:
    """Where pictures end; ours come from there already."""
    return result if result.is_meta else result.float().cpu()


def operations_of(case: Case, empty: Reference) -> int:
    """What diffusers' form of the networks needs; the yardstick of both sides.

    empty: networks on the meta device.
    """
    return operations(case.theirs(empty))


@dataclass(frozen=True)
class Steps:
    stage_c: int = STEPS
    stage_b: int = DECODER_STEPS


# Enough to compile, record and replay.
WARM_UP = Steps(4, 4)


def picture_of_ours(pipeline: Pipeline, request: Request, steps: Steps = Steps()) -> Tensor:
    """Text to pictures, B×H×W×3 in [0, 1]."""
    pictures = pipeline(
        PROMPT,
        NEGATIVE,
        width=request.side,
        height=request.side,
        images_per_prompt=request.batch,
        steps=steps.stage_c,
        cfg=CFG,
        decoder_steps=steps.stage_b,
    )
    return _as_tensor(pictures)


def picture_of_theirs(
    pipelines: Pipelines, request: Request, device: torch.device, steps: Steps = Steps()
) -> Tensor:
    """The same by diffusers. device: where noise is drawn; on the CPU it is the same as ours."""

    def generators() -> list[torch.Generator]:
        return [torch.Generator(device).manual_seed(seed) for seed in range(request.batch)]

    prior, decoder = pipelines
    embeddings = prior(
        PROMPT,
        height=request.side,
        width=request.side,
        timesteps=times("default", steps.stage_c),
        guidance_scale=CFG,
        negative_prompt=NEGATIVE,
        num_images_per_prompt=request.batch,
        generator=generators(),
        output_type="pt",
    ).image_embeddings
    pictures = decoder(
        embeddings,
        PROMPT,
        num_inference_steps=steps.stage_b,
        guidance_scale=0.0,
        generator=generators(),
    ).images
    return _as_tensor(pictures)


def _as_tensor(pictures: Sequence[Image.Image]) -> Tensor:
    return torch.stack([torch.from_numpy(np.asarray(p, dtype=np.float32)) for p in pictures]) / 255
