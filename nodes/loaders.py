"""Loaders: weights on disk -> the parts of the model."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from ..wuerstchen_core.checkpoints import (
    check_part,
    find_parts,
    load_image_encoder,
    load_stage_a,
    load_stage_b,
    load_stage_c,
    load_text_encoder,
)
from ..wuerstchen_core.errors import WireError
from ..wuerstchen_core.optimize import Optimization
from ..wuerstchen_core.residency import DTYPES
from . import runtime
from .choices import (
    folder_choices,
    part_choices,
    path_of,
    resolve,
    stamp,
    text_encoder_files,
)
from .parts import Part, Stored
from .stored import stored_as

CATEGORY = "Würstchen/loaders"

DTYPE = (
    "COMBO",
    {
        "options": list(DTYPES),
        "default": "auto",
        "tooltip": "How weights are kept and computed with. auto picks what is best on this "
        "machine; float32 is exact and slow; heads that need it stay float32 in any case.",
    },
)

# Output name, socket, loader, and what the output is; in the order of the node's outputs.
_PARTS: tuple[tuple[str, str, Callable[..., Any], str], ...] = (
    ("stage_c", "WUERSTCHEN_STAGE_C", load_stage_c, "The prior: text to the 16-channel latent."),
    ("stage_b", "WUERSTCHEN_STAGE_B", load_stage_b, "The decoder: to the 4-channel latent."),
    ("stage_a", "WUERSTCHEN_STAGE_A", load_stage_a, "The VQGAN: 4-channel latent to pixels."),
    (
        "prior_text_encoder",
        "WUERSTCHEN_TEXT_ENCODER",
        load_text_encoder,
        "CLIP-bigG: the texts that Stage C reads.",
    ),
    (
        "decoder_text_encoder",
        "WUERSTCHEN_TEXT_ENCODER",
        load_text_encoder,
        "CLIP-H: the texts that Stage B reads.",
    ),
    (
        "image_encoder",
        "WUERSTCHEN_IMAGE_ENCODER",
        load_image_encoder,
        "EfficientNetV2: pictures to the 16-channel latent.",
    ),
)


def open_part(
    name: str, path: Callable[[], Path], dtype: str, folder: Path | None = None
) -> Part[Any]:
    """One of `_PARTS`, to run as the surroundings say; `path` is asked when it is first used."""
    wanted = fitting(name, runtime.surroundings().optimization)
    if runtime.inside_comfyui():
        from .native import residence  # needs ComfyUI

        return residence.open_part(name, path, dtype, folder, wanted)
    load = next(load for part, _, load, _ in _PARTS if part == name)
    if load is load_text_encoder:  # asked for now: the folders are those of this node call
        load = partial(load, tokenizers=runtime.tokenizer_folders())
    stored = stored_as(name, path, dtype)
    return Part(lambda kept: load(path(), dtype, None, kept), folder, wanted, stored)


def part_of(stored: Stored, dtype: str, folder: Path | None, made_of: str) -> Part[Any]:
    """Stage C of weights that no file holds; folder: where what else is known of it lies."""
    wanted = fitting("stage_c", runtime.surroundings().optimization)
    if runtime.inside_comfyui():
        from .native import residence

        part: Part[Any] = residence.stage_c_part(stored, dtype, folder, wanted)
    else:
        part = Part(lambda kept: stored.make(stored.open(), kept), folder, wanted, stored)
    part.made_of = made_of
    return part


def unwired(name: str, node: str) -> Part[Any]:
    """A node's output of which the input is not wired: it says so as soon as a node uses it.

    name: of `_PARTS`; node: the title of the node.
    """

    def path() -> Path:
        raise WireError(
            f"`{name}` of {node} is used here, and nothing is wired into it; wire the loader's "
            f"`{name}` to its input of that name."
        )

    return open_part(name, path, "auto")


def fitting(name: str, wanted: Optimization) -> Optimization:
    """What of an optimization one of `_PARTS` can use: what runs once a picture is not compiled."""
    return wanted if name in ("stage_c", "stage_b") else replace(wanted, compile="off")


def check(name: str, path: Path, dtype: str) -> None:
    """Lets a loader tell what cannot be used: the weights are read later, and then as they are
    to be kept. Raises CheckpointError and SettingError."""
    device = None
    if runtime.inside_comfyui():
        from .native import residence

        device = residence.device_of(name)
    with runtime.memory_in_words():
        check_part(name, path, dtype, device, runtime.tokenizer_folders())


class LoadPipeline:
    """All parts of one folder of weights."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Opens a folder of Würstchen v2 weights and gives each part its own output. A part is read "
        "when a node first uses it, so parts that are not wired cost nothing."
    )
    SEARCH_ALIASES: ClassVar[list[str]] = ["wuerstchen", "würstchen", "checkpoint", "diffusers"]
    RETURN_TYPES = tuple(socket for _, socket, _, _ in _PARTS)
    RETURN_NAMES = tuple(name for name, _, _, _ in _PARTS)
    OUTPUT_TOOLTIPS = tuple(tooltip for _, _, _, tooltip in _PARTS)
    FUNCTION = "load"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        folder = {
            "options": folder_choices(),
            "tooltip": "A folder with the published repositories side by side: wuerstchen, "
            "wuerstchen-prior and, to encode pictures, EfficientNetEncoder. "
            "wuerstchen-demo is the small model that ships with the project.",
        }
        return {"required": {"folder": ("COMBO", folder), "dtype": DTYPE}}

    def load(self, folder: str, dtype: str) -> tuple[Part[Any], ...]:
        parts = find_parts(resolve(folder))
        return tuple(
            open_part(name, lambda name=name: parts.require(name), dtype, parts.folder)
            for name, _, _, _ in _PARTS
        )

    @classmethod
    def IS_CHANGED(cls, folder: str, dtype: str) -> str:
        return stamp(folder)


class _LoadPart:
    """Base of the loaders of a single part; subclasses name the part."""

    CATEGORY = CATEGORY
    FUNCTION = "load"
    PART: ClassVar[str]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        name = {
            "options": part_choices(cls.PART),
            "tooltip": "A folder of weights that holds this part, or a file (.safetensors, .pt). "
            "What it is, is read from its content.",
        }
        return {"required": {"name": ("COMBO", name), "dtype": DTYPE}}

    def load(self, name: str, dtype: str) -> tuple[Part[Any]]:
        path = path_of(name, self.PART)
        check(self.PART, path, dtype)
        return (open_part(self.PART, lambda: path, dtype, resolve(name, self.PART)),)

    @classmethod
    def IS_CHANGED(cls, name: str, dtype: str) -> str:
        return stamp(name, cls.PART)


class LoadStageC(_LoadPart):
    """Stage C alone, such as a finetuned prior."""

    PART = "stage_c"
    DESCRIPTION = "Loads Stage C, the prior, alone: a published or finetuned one."
    SEARCH_ALIASES: ClassVar[list[str]] = ["wuerstchen prior", "load prior", "stage c"]
    RETURN_TYPES = ("WUERSTCHEN_STAGE_C",)
    RETURN_NAMES = ("stage_c",)


class LoadStageB(_LoadPart):
    """Stage B alone."""

    PART = "stage_b"
    DESCRIPTION = "Loads Stage B, the decoder, alone."
    SEARCH_ALIASES: ClassVar[list[str]] = ["wuerstchen decoder", "load decoder", "stage b"]
    RETURN_TYPES = ("WUERSTCHEN_STAGE_B",)
    RETURN_NAMES = ("stage_b",)


class LoadStageA(_LoadPart):
    """Stage A alone."""

    PART = "stage_a"
    DESCRIPTION = "Loads Stage A, the VQGAN, alone."
    SEARCH_ALIASES: ClassVar[list[str]] = ["wuerstchen vae", "vqgan", "paella", "stage a"]
    RETURN_TYPES = ("WUERSTCHEN_STAGE_A",)
    RETURN_NAMES = ("stage_a",)


class LoadTextEncoder:
    """One CLIP text tower."""

    CATEGORY = CATEGORY
    FUNCTION = "load"
    DESCRIPTION = (
        "Loads one CLIP text tower with its tokenizer: CLIP-bigG for Stage C (1280 wide), "
        "CLIP-H for Stage B (1024 wide). Other models' files that hold the same tower serve too."
    )
    SEARCH_ALIASES: ClassVar[list[str]] = ["wuerstchen clip", "bigG", "CLIP-H"]
    RETURN_TYPES = ("WUERSTCHEN_TEXT_ENCODER",)
    RETURN_NAMES = ("text_encoder",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        name = {
            "options": text_encoder_choices(),
            "tooltip": "A folder of weights, and which of its two text encoders: prior for "
            "Stage C, decoder for Stage B. Or a file that holds one: clip_g.safetensors or an SDXL "
            "checkpoint for Stage C, a Stable Diffusion 2 checkpoint for Stage B.",
        }
        return {"required": {"name": ("COMBO", name), "dtype": DTYPE}}

    def load(self, name: str, dtype: str) -> tuple[Part[Any]]:
        folder, part = _text_part(name)
        path = path_of(folder, part)
        check(part, path, dtype)
        return (open_part(part, lambda: path, dtype),)

    @classmethod
    def IS_CHANGED(cls, name: str, dtype: str) -> str:
        return stamp(*_text_part(name))


class LoadImageEncoder(_LoadPart):
    """The image encoder alone."""

    PART = "image_encoder"
    DESCRIPTION = "Loads the EfficientNetV2 image encoder alone."
    SEARCH_ALIASES: ClassVar[list[str]] = ["wuerstchen effnet", "efficientnet", "image encoder"]
    RETURN_TYPES = ("WUERSTCHEN_IMAGE_ENCODER",)
    RETURN_NAMES = ("image_encoder",)


_TEXT_ROLES = {"prior": "prior_text_encoder", "decoder": "decoder_text_encoder"}


def _text_part(name: str) -> tuple[str, str]:
    """The folder or file, and the part of it, that a choice of a text encoder means."""
    folder, _, role = name.rpartition("/")
    return (folder, _TEXT_ROLES[role]) if role in _TEXT_ROLES else (name, _TEXT_ROLES["prior"])


def text_encoder_choices() -> list[str]:
    """`folder/prior` and `folder/decoder` for each folder of weights, and single files."""
    both = [f"{folder}/{role}" for folder in folder_choices() for role in _TEXT_ROLES]
    return [*both, *text_encoder_files()]


NODES = {
    "WuerstchenLoadPipeline": (LoadPipeline, "Load Würstchen Pipeline"),
    "WuerstchenLoadStageC": (LoadStageC, "Load Würstchen Stage C (prior)"),
    "WuerstchenLoadStageB": (LoadStageB, "Load Würstchen Stage B (decoder)"),
    "WuerstchenLoadStageA": (LoadStageA, "Load Würstchen Stage A (VQGAN)"),
    "WuerstchenLoadTextEncoder": (LoadTextEncoder, "Load Würstchen Text Encoder"),
    "WuerstchenLoadImageEncoder": (LoadImageEncoder, "Load Würstchen Image Encoder"),
}
