"""Training Stage B on the cached latents, given the (sometimes noised or dropped) embedding."""

import random
from functools import partial

import torch
from PIL import Image
from torch import Tensor, nn

from ...image_encoder import ImageEncoder
from ...noise import SampleNoise
from ...sampling import sample
from ...schedule import times
from ...stage_a import StageA
from ...stage_b import StageB, StageBContext
from ...text_encoder import TextEncoder
from ..initialise import initialise_stage_b
from ..objectives import (
    corrupt_embedding,
    diffusion_loss,
    drop_captions,
    stratified_times,
    x0_weight,
)
from ..plots import contact_sheet
from .cache import shrink
from .captions import caption
from .configs import PICTURE, STAGE_A, STAGE_B
from .scenes import attributes_of, draw, sample_scenes
from .stage_a import psnr

BATCH = 16
EMPTY_CAPTIONS = 0.1
NO_TEXT = 0.1  # batches without any text at all, as when no text is wired to the node
STRONGEST_NOISE = 0.15  # time up to which embeddings are noised
# At low noise the latent itself shows the shape; only high noise teaches to draw it from the
# embedding, so most of the times lie there and keep their weight up to t = 0.955. The lowest
# noise is hardly told from the latents' own grain and counts little.
TIME_POWER = 0.4
LOWEST_WEIGHT, HIGHEST_WEIGHT = 0.03, 200.0


class StageBTask:
    """The decoder; judged by the PSNR of held-out pictures through encoder, Stage B and Stage A."""

    def __init__(
        self,
        embeddings: Tensor,
        latents: Tensor,
        classes: Tensor,
        stage_a: StageA,
        encoder: ImageEncoder,
        text_encoder: TextEncoder,
    ) -> None:
        torch.manual_seed(0)
        self.network = StageB(STAGE_B)
        initialise_stage_b(self.network)
        self.embeddings, self.latents, self.classes = embeddings, latents, classes
        self.stage_a, self.text_encoder = stage_a.eval(), text_encoder
        generator = torch.Generator().manual_seed(1)
        self.held_out = draw(sample_scenes(16, generator, held_out=True), PICTURE)
        with torch.no_grad():
            self.held_out_embeddings = encoder.eval()(shrink(self.held_out))

    def loss(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        rows = torch.randint(len(self.latents), (BATCH,), generator=generator)
        x0 = self.latents[rows] / STAGE_A.scale_factor
        embedding = corrupt_embedding(self.embeddings[rows], generator, strongest=STRONGEST_NOISE)
        text = None
        if torch.rand((), generator=generator) >= NO_TEXT:
            rng = random.Random(int(torch.randint(2**31, (1,), generator=generator)))
            captions = [caption(a, rng) for a in attributes_of(self.classes[rows])]
            text = self.text_encoder.encode(drop_captions(captions, EMPTY_CAPTIONS, generator))
        context = self.network.prepare(embedding, (x0.shape[-2], x0.shape[-1]), text)
        t = stratified_times(BATCH, generator, power=TIME_POWER)
        weight = partial(x0_weight, lowest=LOWEST_WEIGHT, highest=HIGHEST_WEIGHT)
        predict = partial(self.network, context=context)
        losses = diffusion_loss(predict, x0, t, generator, weight)
        return {"eps": losses.mean()}

    def probe(self, network: nn.Module) -> dict[str, float]:
        return {"psnr_db": psnr(self._reconstruct(network), self.held_out).mean().item()}

    def sheet(self, network: nn.Module) -> Image.Image:
        made = self._reconstruct(network)
        return contact_sheet(torch.cat([self.held_out[:8], made[:8]]), columns=8)

    def _reconstruct(self, network: nn.Module) -> Tensor:
        assert isinstance(network, StageB)
        size = (PICTURE // 4, PICTURE // 4)
        context: StageBContext = network.prepare(self.held_out_embeddings, size)
        noise = SampleNoise(range(len(self.held_out)))
        start = noise.draw((STAGE_B.c_in, *size))
        model = partial(network, context=context)
        x0 = sample(model, start, times("uniform", 12), "ddpm", noise)
        return self.stage_a.decode(x0 * STAGE_A.scale_factor).clamp(0, 1)
