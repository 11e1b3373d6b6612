"""Training Stage C on the cached embeddings: z = (e + 1)/42 is noised, the caption is given."""

import random
from functools import partial

import torch
from PIL import Image
from torch import Tensor, nn

from ...conditions import Condition
from ...guidance import Predictor
from ...noise import SampleNoise
from ...sampling import sample
from ...schedule import times
from ...stage_c import StageC, from_embedding
from ...text_encoder import TextEncoder
from ..initialise import initialise_stage_c
from ..objectives import diffusion_loss, drop_captions, stratified_times, x0_weight
from ..plots import contact_sheet
from .captions import canonical, caption
from .configs import GRID, STAGE_C
from .encoder import EncoderAndPainter, read_cells
from .scenes import (
    COLORS,
    PLACES,
    SHAPES,
    SIZES,
    Attributes,
    all_attributes,
    attributes_of,
    is_held_out,
)

BATCH = 64
EMPTY_CAPTIONS = 0.1
TERSE_CAPTIONS = 0.1
# Where the object is can only come from zero padding, which is slow to be found; the first steps
# see high noise only, where nothing else can lower the loss.
HIGH_NOISE_STEPS = 600
PROBES = 64


class StageCTask:
    """The prior; judged by sampling held-out captions and reading the cells."""

    def __init__(
        self,
        embeddings: Tensor,
        classes: Tensor,
        text_encoder: TextEncoder,
        reader: EncoderAndPainter,
    ) -> None:
        self.network = StageC(STAGE_C)
        torch.manual_seed(0)
        initialise_stage_c(self.network, small=True)
        self.embeddings, self.classes = embeddings, classes
        self.text_encoder, self.reader = text_encoder, reader.eval()
        held_out = [a for a in all_attributes() if is_held_out(a)]
        self.probes = random.Random(3).sample(held_out, PROBES)

    def loss(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        rows = torch.randint(len(self.embeddings), (BATCH,), generator=generator)
        rng = random.Random(int(torch.randint(2**31, (1,), generator=generator)))
        captions = [
            caption(a, rng, terse=rng.random() < TERSE_CAPTIONS)
            for a in attributes_of(self.classes[rows])
        ]
        text = self.text_encoder.encode(drop_captions(captions, EMPTY_CAPTIONS, generator))
        z = from_embedding(self.embeddings[rows])
        t = stratified_times(BATCH, generator, 0.85 if step < HIGH_NOISE_STEPS else 0.01)
        predict = partial(self.network, context=self.network.prepare(text))
        return {"eps": diffusion_loss(predict, z, t, generator, x0_weight).mean()}

    def probe(self, network: nn.Module) -> dict[str, float]:
        result = {}
        for cfg in (1.0, 4.0):
            found = self._read(self._sample(network, self.probes, cfg))
            for i, name in enumerate(("background", "shape", "color", "size", "place")):
                right = [getattr(a, name) == f[i] for a, f in zip(self.probes, found, strict=True)]
                result[f"cfg{cfg:g}_{name}"] = sum(right) / len(right)
        return result

    def sheet(self, network: nn.Module) -> Image.Image:
        some = self.probes[:16]
        painted = self.reader.paint(self._sample(network, some, 4.0)).clamp(0, 1)
        return contact_sheet(painted, columns=8, captions=[canonical(a) for a in some])

    def _sample(self, network: nn.Module, wanted: list[Attributes], cfg: float) -> Tensor:
        assert isinstance(network, StageC)
        captions = [canonical(a) for a in wanted]
        branches = [[Condition((self.text_encoder.encode(captions),))]]
        if cfg > 1:
            nothing = self.text_encoder.encode([""] * len(captions))
            branches.insert(0, [Condition((nothing,))])
        model = Predictor(network, network.prepare, branches, [cfg])
        noise = SampleNoise(range(len(wanted)))
        start = noise.draw((16, *GRID))
        return sample(model, start, times("default", 15), "ddpm", noise)

    def _read(self, z: Tensor) -> list[tuple[str, str, str, str, str]]:
        logits, place = read_cells(self.reader, z)
        names = (list(COLORS), SHAPES, list(COLORS), SIZES)
        columns = [
            [values[i] for i in found.mean(dim=(1, 2)).argmax(dim=1).tolist()]
            for values, found in zip(names, logits, strict=True)
        ]
        columns.append([nearest_place(x, y) for x, y in place.mean(dim=(1, 2)).tolist()])
        return list(zip(*columns, strict=True))


def nearest_place(x: float, y: float) -> str:
    """The place word of a point in units of the picture side."""
    vertical = "top" if y < 0.43 else "bottom" if y > 0.57 else ""
    horizontal = "left" if x < 0.43 else "right" if x > 0.57 else ""
    found = f"{vertical} {horizontal}".strip() or "center"
    assert found in PLACES
    return found
