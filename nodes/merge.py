"""Merging priors, and saving them."""

import re
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from torch import Tensor

from ..wuerstchen_core.checkpoints.load import Weights
from ..wuerstchen_core.errors import SettingError
from ..wuerstchen_core.folder_lock import folder_lock
from ..wuerstchen_core.merge import METHODS, merged, write_stage_c
from ..wuerstchen_core.residency import BY_NAME
from . import runtime
from .loaders import DTYPE, part_of
from .parts import Part
from .stored import stored_stage_c

CATEGORY = "Würstchen/merging"
_LONGEST = 1000  # characters of what a merge is made of; a chain can double them each time


class MergeStageC:
    """Two or three priors -> one."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Merges priors into one: a weighted sum of A and B, or A and what makes B different from "
        "C. The published prior is such a sum, half base and half finetuned. LoRAs on the inputs "
        "are merged with them."
    )
    SEARCH_ALIASES: ClassVar[list[str]] = ["wuerstchen merge", "model merge", "merge priors"]
    RETURN_TYPES = ("WUERSTCHEN_STAGE_C",)
    RETURN_NAMES = ("stage_c",)
    OUTPUT_TOOLTIPS = ("The merged prior, computed when it is first used.",)
    FUNCTION = "merge"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "stage_c_a": ("WUERSTCHEN_STAGE_C", {"tooltip": "A, from a Würstchen loader."}),
                "stage_c_b": ("WUERSTCHEN_STAGE_C", {"tooltip": "B, of the same size as A."}),
                "method": (
                    "COMBO",
                    {
                        "options": list(METHODS),
                        "default": METHODS[0],
                        "tooltip": "weighted_sum: A + ratio · (B - A). add_difference: "
                        "A + ratio · (B - C).",
                    },
                ),
                "ratio": (
                    "FLOAT",
                    {
                        "default": 0.5,
                        "min": -2.0,
                        "max": 2.0,
                        "step": 0.01,
                        "tooltip": "Of a weighted sum: 0 is A, 1 is B. Of a difference: how much "
                        "of it is added.",
                    },
                ),
                "dtype": DTYPE,
            },
            "optional": {
                "stage_c_c": (
                    "WUERSTCHEN_STAGE_C",
                    {"tooltip": "C, for add_difference: what B was trained from."},
                ),
            },
        }

    def merge(
        self,
        stage_c_a: Part[Any],
        stage_c_b: Part[Any],
        method: str,
        ratio: float,
        dtype: str,
        stage_c_c: Part[Any] | None = None,
    ) -> tuple[Part[Any]]:
        a, b, c = stage_c_a, stage_c_b, stage_c_c
        if method == "add_difference" and c is None:
            raise SettingError(
                "add_difference needs `stage_c_c`, what B was trained from; wire it, or choose "
                "weighted_sum."
            )
        if method == "weighted_sum":
            c = None
            made_of = f"{1 - ratio:g} × ({a.made_of}) + {ratio:g} × ({b.made_of})"
        else:
            assert c is not None
            made_of = f"({a.made_of}) + {ratio:g} × (({b.made_of}) - ({c.made_of}))"
        merging = _Merging(ratio, [part.opener for part in (a, b, c) if part is not None])
        merging()  # sizes that differ are told here, not by whoever uses it
        if len(made_of) > _LONGEST:
            made_of = made_of[: _LONGEST - 1] + "…"
        made = part_of(stored_stage_c(merging, dtype), dtype, a.folder, made_of)
        return (made.sampled(a.guidance, a.wraps),)


class _Merging:
    """Opens a merge, once for all that use its weights at a time: it may be both A and B of the
    next, and that of another, so that a chain of n would open the first 2ⁿ times."""

    def __init__(self, ratio: float, openers: Sequence[Callable[[], Weights]]) -> None:
        self._ratio, self._openers = ratio, openers
        self._config: Any = None
        self._state: Callable[[], Mapping[str, Tensor] | None] = lambda: None

    def __call__(self) -> Weights:
        if (state := self._state()) is not None:
            return Weights(self._config, state)
        a, b, *c = [opened() for opened in self._openers]
        weights = merged(a, b, self._ratio, *c)
        self._config, self._state = weights.config, weakref.ref(weights.state)
        return weights


class SaveStageC:
    """Stage C -> a folder of weights."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Saves Stage C with its LoRAs and merges as a folder of weights in the output folder. Move "
        "it into the models folder to load it; diffusers opens it too."
    )
    SEARCH_ALIASES: ClassVar[list[str]] = ["wuerstchen save", "save model", "bake lora"]
    RETURN_TYPES = ("WUERSTCHEN_STAGE_C",)
    RETURN_NAMES = ("stage_c",)
    OUTPUT_TOOLTIPS = ("The same Stage C, to go on with.",)
    FUNCTION = "save"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "stage_c": (
                    "WUERSTCHEN_STAGE_C",
                    {"tooltip": "From a loader, Load Würstchen LoRA or Würstchen Merge Stage C."},
                ),
                "filename_prefix": (
                    "STRING",
                    {
                        "default": "wuerstchen/prior",
                        "tooltip": "The folder's name; a number is added. Slashes make folders.",
                    },
                ),
                "dtype": (
                    "COMBO",
                    {
                        "options": list(BY_NAME),
                        "default": "float16",
                        "tooltip": "What weights are saved in. float32 is exact and twice as "
                        "large; what Würstchen Optimize does is not saved.",
                    },
                ),
            }
        }

    def save(self, stage_c: Part[Any], filename_prefix: str, dtype: str) -> dict[str, Any]:
        root = runtime.surroundings().output_dir()
        subfolder, name = _split_prefix(filename_prefix)
        try:
            parent = root / subfolder
            parent.mkdir(parents=True, exist_ok=True)
            with folder_lock(parent), runtime.memory_in_words():
                folder = _next_folder(parent, name)
                write_stage_c(stage_c.content(), folder, BY_NAME[dtype], stage_c.made_of)
        except (OSError, UnicodeEncodeError) as error:
            reason = (
                error.strerror or error if isinstance(error, OSError) else "not a name in UTF-8"
            )
            raise SettingError(
                f"filename_prefix {filename_prefix!r} cannot be saved to: {reason}."
            ) from error
        runtime.report([f"saved {stage_c.made_of} as {folder.relative_to(root)}"])
        saved = {"filename": folder.name, "subfolder": subfolder.as_posix(), "type": "output"}
        return {"ui": {"folders": [saved]}, "result": (stage_c,)}


def _split_prefix(prefix: str) -> tuple[PurePosixPath, str]:
    """Subfolder and name. Raises SettingError for a path that leads outside."""
    path = PurePosixPath(prefix.replace("\\", "/"))
    hidden = any(part.startswith(".") or ":" in part or "\0" in part for part in path.parts)
    if not path.parts or path.is_absolute() or hidden:
        raise SettingError(
            f"filename_prefix {prefix!r} must be a name like 'prior' or 'wuerstchen/prior'."
        )
    return path.parent, path.name


def _next_folder(parent: Path, name: str) -> Path:
    """`parent/name_00001`, with the next free number."""
    numbered = re.compile(re.escape(name) + r"_(\d+)")
    found = (numbered.fullmatch(entry.name) for entry in parent.iterdir())
    number = max((int(match[1]) for match in found if match), default=0) + 1
    return parent / f"{name}_{number:05}"


NODES = {
    "WuerstchenMergeStageC": (MergeStageC, "Würstchen Merge Stage C"),
    "WuerstchenSaveStageC": (SaveStageC, "Save Würstchen Stage C"),
}
