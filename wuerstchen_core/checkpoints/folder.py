"""Finding the parts of the model in a folder of weights."""

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import CheckpointError, MissingPartError, UnreadableCheckpointError
from .constants import check_constants
from .detect import Kind, detect
from .read import State
from .source import entries, find_source, parts_in, read_source
from .towers import tower_in

log = logging.getLogger(__name__)

_PART_KINDS = {
    Kind.STAGE_C,
    Kind.STAGE_B,
    Kind.STAGE_A,
    Kind.TEXT_ENCODER,
    Kind.IMAGE_ENCODER,
}
CLIP_BIGG_WIDTH, CLIP_H_WIDTH = 1280, 1024
# The tensor whose last size is the width of the text states that a part makes or reads.
_TEXT_WIDTHS = {
    Kind.STAGE_C: "cond_mapper.0.weight",
    Kind.STAGE_B: "clip_mapper.weight",
    Kind.STAGE_B_V1: "byt5_mapper.weight",
}

# Part -> published repository, and the file in it.
PUBLISHED = {
    "stage_c": ("wuerstchen-prior", "prior/diffusion_pytorch_model.safetensors"),
    "stage_b": ("wuerstchen", "decoder/diffusion_pytorch_model.safetensors"),
    "stage_a": ("wuerstchen", "vqgan/diffusion_pytorch_model.safetensors"),
    "prior_text_encoder": ("wuerstchen-prior", "text_encoder/model.safetensors"),
    "decoder_text_encoder": ("wuerstchen", "text_encoder/model.safetensors"),
    "image_encoder": ("EfficientNetEncoder", "diffusion_pytorch_model.safetensors"),
}


@dataclass(frozen=True)
class FolderParts(ABC):
    """Where each part lies; subclasses have a field for each."""

    folder: Path
    unused: tuple[str, ...] = field(default=(), kw_only=True)  # weights that are no part, and why

    def require(self, part: str) -> Path:
        """The path of a part. Raises MissingPartError, which says what to put where."""
        path: Path | None = getattr(self, part)
        if path is not None:
            return path
        unused = f" Not used: {'; '.join(self.unused[:3])}." if self.unused else ""
        raise MissingPartError(f"{self.folder} has no {self._wanted(part)}.{unused}")

    @abstractmethod
    def _wanted(self, part: str) -> str:
        """A part in words, and what to put where."""


@dataclass(frozen=True)
class Parts(FolderParts):
    """Each is a folder with config.json and weights, or a file of weights."""

    stage_c: Path | None = None
    stage_b: Path | None = None
    stage_a: Path | None = None
    prior_text_encoder: Path | None = None
    decoder_text_encoder: Path | None = None
    image_encoder: Path | None = None

    def _wanted(self, part: str) -> str:
        repository, file = PUBLISHED[part]
        rest = "its config.json" + (" and `tokenizer` folder" if "text" in part else "")
        return (
            f"{part.replace('_', ' ')}; put {file} of warp-ai/{repository}, with {rest}, there as "
            f"{self.folder / repository / file}"
        )


@dataclass(frozen=True)
class Candidate:
    """One part that was found. `repository` is the folder whose parts belong together."""

    kind: Kind
    path: Path
    repository: Path
    width: int  # of the text states that it makes or reads; 0 for parts without any


def find_parts(folder: Path) -> Parts:
    """Looks through a folder for parts of the model.

    It may hold the published repositories side by side, be one of them, be a Hugging Face cache,
    or hold the original .pt files. What weights are is judged by their tensors' names. Raises
    UnreadableCheckpointError when there is no such folder, and what `check_constants` raises.
    """
    candidates, unused = look_through(folder, _PART_KINDS)
    stage_c = best(Kind.STAGE_C, candidates, other_width=CLIP_H_WIDTH)
    stage_b = best(Kind.STAGE_B, candidates)
    for stage in (stage_c, stage_b):
        if stage is not None:
            check_constants(stage.repository)
    return Parts(
        folder,
        stage_c=path_of(stage_c),
        stage_b=path_of(stage_b),
        stage_a=path_of(best(Kind.STAGE_A, candidates)),
        prior_text_encoder=path_of(text_encoder_of(stage_c, CLIP_BIGG_WIDTH, candidates)),
        decoder_text_encoder=path_of(text_encoder_of(stage_b, CLIP_H_WIDTH, candidates)),
        image_encoder=path_of(best(Kind.IMAGE_ENCODER, candidates)),
        unused=tuple(unused),
    )


def look_through(folder: Path, kinds: Collection[Kind]) -> tuple[list[Candidate], list[str]]:
    """What lies in a folder, and which weights are of none of these kinds and why.

    Raises UnreadableCheckpointError when there is no such folder.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise UnreadableCheckpointError(f"{folder} {what}; a folder of weights is expected.")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise UnreadableCheckpointError(f"{folder} may not be read; change its permissions.")
    candidates: list[Candidate] = []
    unused: list[str] = []
    for path, repository in weights_below(folder):
        try:
            candidates += _look_into(path, repository)
        except CheckpointError as error:
            unused.append(str(error).rstrip("."))
    unused += [f"{c.path} is {c.kind.title}" for c in candidates if c.kind not in kinds]
    return candidates, unused


def best(kind: Kind, candidates: list[Candidate], other_width: int = 0) -> Candidate | None:
    """Of several, that of a whole pipeline, then the interpolated prior (the published default).

    other_width: of the texts that the other version's reads, which comes last.
    """

    def rank(candidate: Candidate) -> tuple[bool, bool, bool, str]:
        other = candidate.width == other_width
        whole = (candidate.repository / "model_index.json").is_file()
        return other, not whole, "interpol" not in candidate.path.name, str(candidate.path)

    found = sorted((c for c in candidates if c.kind is kind), key=rank)
    if len(found) > 1:
        others = ", ".join(str(c.path) for c in found[1:])
        log.info("%s: using %s; also found %s", kind.title, found[0].path, others)
    return found[0] if found else None


def text_encoder_of(
    stage: Candidate | None, usual_width: int, candidates: list[Candidate]
) -> Candidate | None:
    """The text encoder as wide as a stage reads, best the one that lies beside it."""
    width = stage.width if stage else usual_width
    fitting = [c for c in candidates if c.kind is Kind.TEXT_ENCODER and c.width == width]
    beside = [c for c in fitting if stage and c.repository == stage.repository]
    return next(iter(beside or fitting), None)


def path_of(candidate: Candidate | None) -> Path | None:
    return candidate.path if candidate else None


def _look_into(path: Path, repository: Path) -> list[Candidate]:
    """What a part's folder or a file holds: names and shapes are read, no data."""
    found = []
    for state in read_source(find_source(path)):
        kind, tower = detect(state), tower_in(state)
        if kind is not Kind.TEXT_ENCODER:
            found.append(Candidate(kind, path, repository, _text_width(kind, state)))
        if tower is not None:  # also inside of another model's checkpoint
            found.append(Candidate(Kind.TEXT_ENCODER, path, repository, tower.width))
    return found


def _text_width(kind: Kind, state: State) -> int:
    value = state.get(_TEXT_WIDTHS.get(kind, ""))
    return value.shape[-1] if value is not None and value.ndim else 0


def weights_below(folder: Path) -> Iterator[tuple[Path, Path]]:
    """(weights, their repository): in the folder, in repositories in it, in their parts."""
    top = _snapshot(folder)
    for path in parts_in(top):
        yield path, top
    for repository in map(_snapshot, _subfolders(top)):
        for path in parts_in(repository):
            yield path, top
        for part in _subfolders(repository):
            for path in parts_in(part):
                yield path, repository


def _subfolders(folder: Path) -> list[Path]:
    return [path for path in entries(folder) if path.is_dir()]


def _snapshot(folder: Path) -> Path:
    """A repository in a Hugging Face cache -> the checkout to use; other folders are themselves."""
    snapshots = folder / "snapshots"
    if not snapshots.is_dir():
        return folder
    main = folder / "refs" / "main"
    if main.is_file() and (snapshots / main.read_text("utf-8").strip()).is_dir():
        return snapshots / main.read_text("utf-8").strip()
    revisions = sorted(_subfolders(snapshots), key=lambda revision: revision.stat().st_mtime)
    return revisions[-1] if revisions else folder
