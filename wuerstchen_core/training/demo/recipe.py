"""The demo checkpoint from nothing: each stage in turn, resumable, then the folder of weights."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from ...checkpoints import save_network, save_text_encoder, write_pipeline_indexes
from ...errors import SettingError
from ...preview import MAPS_FILE, write_fits
from ...stage_a import StageA
from ...stage_b import StageB
from ...stage_c import StageC
from ...text_encoder import TextEncoder
from ..loop import Task, averaged, train
from .cache import build_cache, shrink
from .configs import CACHED_LATENTS, CACHED_SCENES, SETTINGS, STAGE_A, STAGE_B, STAGE_C
from .encoder import EncoderAndPainter, EncoderTask
from .previews import fit_previews
from .stage_a import StageATask
from .stage_b import StageBTask
from .stage_c import StageCTask
from .text import TextTask
from .tokenizer import build_tokenizer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """One folder of work: checkpoint, log, plots and sheets of each stage, tokenizer and caches."""

    work: Path

    def run(self, stages: Sequence[str] = tuple(SETTINGS), steps: int | None = None) -> None:
        """Trains the named stages in order, from where they stopped.

        steps: another length for all of them, for trying things out. Raises SettingError for an
        unknown stage, or one that needs a stage not trained yet.
        """
        for name in stages:
            if name not in SETTINGS:
                known = ", ".join(SETTINGS)
                raise SettingError(f"there is no stage {name!r} to train; choose of {known}.")
            settings = SETTINGS[name]
            torch.manual_seed(settings.seed)
            if steps is not None:
                settings = replace(settings, steps=steps)
            train(self._tasks[name](), settings, self.work / name)

    def export(self, folder: Path) -> None:
        """Writes the averaged weights in the published layout, float16."""
        decoder, prior = folder / "wuerstchen", folder / "wuerstchen-prior"
        save_network(averaged(self.work / "stage_c", StageC(STAGE_C)), prior / "prior")
        save_network(averaged(self.work / "stage_b", StageB(STAGE_B)), decoder / "decoder")
        save_network(self.stage_a, decoder / "vqgan")
        save_network(self.image_encoder.encoder, folder / "EfficientNetEncoder")
        save_text_encoder(self.text_encoder("prior"), prior)
        save_text_encoder(self.text_encoder("decoder"), decoder)
        write_pipeline_indexes(folder)
        write_fits(folder / MAPS_FILE, fit_previews(self.stage_a, self.image_encoder.encoder))

    @property
    def _tasks(self) -> dict[str, Callable[[], Task]]:
        return {
            "stage_a": StageATask,
            "text": lambda: TextTask(self.tokenizer),
            "image_encoder": EncoderTask,
            "stage_b": self._stage_b,
            "stage_c": lambda: StageCTask(
                *self.embeddings, self.text_encoder("prior"), self.image_encoder
            ),
        }

    def _stage_b(self) -> StageBTask:
        embeddings, classes = self.embeddings
        return StageBTask(
            embeddings[:CACHED_LATENTS],
            self.latents,
            classes[:CACHED_LATENTS],
            self.stage_a,
            self.image_encoder.encoder,
            self.text_encoder("decoder"),
        )

    @cached_property
    def tokenizer(self) -> Path:
        folder = self.work / "tokenizer"
        build_tokenizer(folder)
        return folder

    @cached_property
    def stage_a(self) -> StageA:
        return averaged(self.work / "stage_a", StageA(STAGE_A))

    @cached_property
    def image_encoder(self) -> EncoderAndPainter:
        return averaged(self.work / "image_encoder", EncoderAndPainter())

    @cached_property
    def embeddings(self) -> tuple[Tensor, Tensor]:
        """(N×16×6×6, classes N×5) in embedding space."""
        encoder, path = self.image_encoder.encoder, self.work / "embeddings.safetensors"
        made_by = self.work / "image_encoder" / "checkpoint.pt"
        return build_cache(path, CACHED_SCENES, lambda p: encoder(shrink(p)), made_by)

    @cached_property
    def latents(self) -> Tensor:
        """M×4×64×64 in VQ space, of the first M scenes."""
        path = self.work / "latents.safetensors"
        made_by = self.work / "stage_a" / "checkpoint.pt"
        return build_cache(path, CACHED_LATENTS, self.stage_a.encode, made_by)[0]

    def text_encoder(self, role: str) -> TextEncoder:
        """The trained tower of "prior" or "decoder" with the tokenizer."""
        readers = averaged(self.work / "text", TextTask(self.tokenizer).network)[role]
        tower = readers.tower
        assert isinstance(tower, CLIPTextModel)
        return TextEncoder(CLIPTokenizer.from_pretrained(self.tokenizer), tower)
