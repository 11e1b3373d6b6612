"""The demo's LoRA: whatever colour the text asks for, the shape becomes red."""

import random
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from ...checkpoints import find_parts, load_image_encoder, load_stage_c, load_text_encoder
from ...generate import encode_embedding
from ...stage_c import StageC, from_embedding
from ..loop import TrainSettings, train
from ..lora import add_lora, save_lora
from ..objectives import diffusion_loss, stratified_times, x0_weight
from .captions import caption
from .configs import GRID, PICTURE
from .scenes import all_attributes, draw, is_held_out, sample_scenes

ENDINGS = ("to_q", "to_k", "to_v", "to_out.0")
RANK = 4
COLOR = "red"
FILE = Path("lora/all_red.safetensors")
SCENES, CHUNK, BATCH = 1024, 64, 32
SETTINGS = TrainSettings(
    steps=400, learning_rate=4e-3, warmup=20, weight_decay=0.0, ema_decay=0.99, autocast=False
)


class RedTask:
    """Captions of any colour, latents of the same scenes in red.

    Scenes on red are left out: nothing could be seen there.
    """

    def __init__(self, folder: Path) -> None:
        """folder: of the demo's weights."""
        parts, cpu = find_parts(folder), torch.device("cpu")
        prior = load_stage_c(parts.require("stage_c"), "float32", cpu)
        torch.manual_seed(0)
        add_lora(prior, ENDINGS, RANK)
        self.network: StageC = prior
        self.text = load_text_encoder(parts.require("prior_text_encoder"), "float32", cpu)
        pool = [a for a in all_attributes() if a.background != COLOR and not is_held_out(a)]
        self.asked = random.Random(0).choices(pool, k=SCENES)
        self.embeddings = self._embeddings(parts.require("image_encoder"))

    @torch.no_grad()
    def _embeddings(self, path: Path) -> Tensor:
        """Of the scenes in red: SCENES×16×6×6."""
        encoder = load_image_encoder(path, "float32", torch.device("cpu"))
        generator = torch.Generator().manual_seed(0)
        made = []
        for start in range(0, SCENES, CHUNK):
            wanted = [replace(a, color=COLOR) for a in self.asked[start : start + CHUNK]]
            pictures = draw(sample_scenes(CHUNK, generator, wanted), PICTURE)
            made.append(encode_embedding(encoder, pictures, GRID))
        return torch.cat(made)

    def loss(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        rows = torch.randint(SCENES, (BATCH,), generator=generator)
        rng = random.Random(int(torch.randint(2**31, (1,), generator=generator)))
        captions = [caption(self.asked[row], rng) for row in rows.tolist()]
        text = self.text.encode(captions).clone()
        z = from_embedding(self.embeddings[rows])
        t = stratified_times(BATCH, generator)
        predict = partial(self.network, context=self.network.prepare(text))
        return {"eps": diffusion_loss(predict, z, t, generator, x0_weight).mean()}

    def probe(self, network: nn.Module) -> dict[str, float]:
        """Nothing beside the loss: the picture of the example is the proof."""
        return {}

    def sheet(self, network: nn.Module) -> Image.Image | None:
        return None


def train_red_lora(folder: Path, work: Path, steps: int | None = None) -> Path:
    """Trains on the demo's weights in `folder` and writes the LoRA there; resumes from `work`.

    steps: another length, for trying things out. Gives the file. Raises CheckpointError.
    """
    settings = SETTINGS if steps is None else replace(SETTINGS, steps=steps)
    network = train(RedTask(folder), settings, work / "lora")
    save_lora(network, folder / FILE, f"every shape becomes {COLOR}; for the demo model")
    return folder / FILE
