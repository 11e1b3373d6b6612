"""The demo checkpoint's examination: pictures of held-out captions, read back from their pixels."""

import json
import random
import time
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ...checkpoints import find_parts, load_image_encoder
from ...files import write_atomically
from ...generate import (
    SamplerSettings,
    decode_pixels,
    encode_embedding,
    sample_stage_b,
    sample_stage_c,
)
from ...noise import SampleNoise
from ...pipeline import Pipeline
from ..plots import contact_sheet
from .captions import canonical, caption
from .checker import check, score
from .configs import GRID, PICTURE
from .scenes import Attributes, all_attributes, draw, is_held_out, sample_scenes
from .stage_a import psnr

PROMPTS, RECONSTRUCTIONS = 300, 100
CHUNK = 20

# The demo wants less guidance than the published model: at 4 its shapes warp.
STAGE_C = SamplerSettings(steps=29, cfg=2.0, scheduler="default")
STAGE_B = SamplerSettings(steps=12, cfg=0.0, scheduler="uniform")


def evaluate(
    folder: Path, report: Path, stage_c: SamplerSettings = STAGE_C, seed: int = 0
) -> dict[str, float]:
    """Scores the weights in `folder`; writes `scores.json` and sheets of pictures into `report`.

    Half of the captions are plain sentences, half are random wordings. Gives the share of
    pictures right in each attribute and in all, seconds a picture, and the reconstruction's PSNR.
    """
    report.mkdir(parents=True, exist_ok=True)
    pipeline = Pipeline.from_folder(folder, dtype="float32")
    rng = random.Random(seed)
    wanted = rng.sample([a for a in all_attributes() if is_held_out(a)], PROMPTS)
    prompts = [canonical(a) if i % 2 else caption(a, rng) for i, a in enumerate(wanted)]

    started = time.monotonic()
    pictures = _paint(pipeline, prompts, stage_c)
    scores = score(check(pictures), wanted)
    scores["seconds_a_picture"] = (time.monotonic() - started) / PROMPTS
    rebuilt, truth = _rebuild(pipeline, folder)
    scores["reconstruction_psnr_db"] = psnr(rebuilt, truth).mean().item()

    scores = {name: round(value, 4) for name, value in scores.items()}
    with write_atomically(report / "scores.json") as partial:
        partial.write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")
    _write_sheets(report, pictures, prompts, wanted, rebuilt, truth)
    return scores


def _paint(pipeline: Pipeline, prompts: list[str], settings: SamplerSettings) -> Tensor:
    """One picture a prompt; picture i is seeded i."""
    pictures = []
    for start in tqdm(range(0, len(prompts), CHUNK), desc="prompts", dynamic_ncols=True):
        texts = prompts[start : start + CHUNK]
        seeds = range(start, start + len(texts))
        embedding = sample_stage_c(
            pipeline.stage_c,
            pipeline.prior_text_encoder.encode(texts),
            pipeline.prior_text_encoder.encode([""]),
            torch.zeros(len(texts), pipeline.stage_c.config.c_in, *GRID),
            SampleNoise(seeds),
            settings,
        )
        text = pipeline.decoder_text_encoder.encode(texts)
        noise = SampleNoise(seeds)
        latent = sample_stage_b(pipeline.stage_b, embedding, text, None, None, noise, STAGE_B)
        pictures.append(decode_pixels(pipeline.stage_a, latent))
    return torch.cat(pictures)


def _rebuild(pipeline: Pipeline, folder: Path) -> tuple[Tensor, Tensor]:
    """Held-out pictures through image encoder, Stage B (without text) and Stage A."""
    encoder = load_image_encoder(find_parts(folder).require("image_encoder"), "float32")
    generator = torch.Generator().manual_seed(99)
    truth = draw(sample_scenes(RECONSTRUCTIONS, generator, held_out=True), PICTURE)
    rebuilt = []
    for start in tqdm(range(0, len(truth), CHUNK), desc="rebuild", dynamic_ncols=True):
        embedding = encode_embedding(encoder, truth[start : start + CHUNK], GRID)
        noise = SampleNoise(range(start, start + len(embedding)))
        latent = sample_stage_b(pipeline.stage_b, embedding, None, None, None, noise, STAGE_B)
        rebuilt.append(decode_pixels(pipeline.stage_a, latent))
    return torch.cat(rebuilt), truth


def _write_sheets(
    report: Path,
    pictures: Tensor,
    prompts: list[str],
    wanted: list[Attributes],
    rebuilt: Tensor,
    truth: Tensor,
) -> None:
    wrong = [
        i
        for i, (found, asked) in enumerate(zip(check(pictures), wanted, strict=True))
        if vars(found) != vars(asked)
    ][:32]
    sheets = {
        "pictures.png": contact_sheet(pictures[:32], columns=8, captions=prompts[:32]),
        "rebuilt.png": contact_sheet(torch.cat([truth[:8], rebuilt[:8]]), columns=8),
    }
    if wrong:
        captions = [prompts[i] for i in wrong]
        sheets["wrong.png"] = contact_sheet(pictures[wrong], columns=8, captions=captions)
    for name, sheet in sheets.items():
        with write_atomically(report / name) as partial:
            sheet.save(partial, format="PNG")
