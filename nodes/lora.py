"""LoRAs: files that change some weights of a stage."""

from collections.abc import Sequence
from typing import Any, ClassVar

from ..wuerstchen_core.lora import (
    LoraFile,
    Match,
    is_for_text,
    match,
    nothing_fits,
    read_lora,
    rest_of,
)
from . import runtime
from .choices import lora_choices, resolve, stamp
from .loaders import CATEGORY, unwired
from .parts import Part

_LISTED = 8  # names of what is not applied

# Input and output name, socket, what it is in words, and what the output is.
_CHANGED = (
    ("stage_c", "WUERSTCHEN_STAGE_C", "Stage C", "Stage C with the LoRA."),
    ("stage_b", "WUERSTCHEN_STAGE_B", "Stage B", "Stage B with the LoRA."),
    (
        "prior_text_encoder",
        "WUERSTCHEN_TEXT_ENCODER",
        "the text encoder",
        "The prior's text encoder with the LoRA.",
    ),
)


class LoadLoRA:
    """Parts and a file -> the parts with the LoRA."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Applies a LoRA, LoHa, LoKr or DoRA for Würstchen v2. Chain several nodes for several "
        "files; their order does not matter. The parts that come in stay as they are."
    )
    SEARCH_ALIASES: ClassVar[list[str]] = [
        "wuerstchen lora",
        "lora loader",
        "lycoris",
        "loha",
        "lokr",
        "dora",
    ]
    RETURN_TYPES = tuple(socket for _, socket, _, _ in _CHANGED)
    RETURN_NAMES = tuple(name for name, _, _, _ in _CHANGED)
    OUTPUT_TOOLTIPS = tuple(tooltip for _, _, _, tooltip in _CHANGED)
    FUNCTION = "load"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "stage_c": ("WUERSTCHEN_STAGE_C", {"tooltip": "From a Würstchen loader."}),
                "lora_name": (
                    "COMBO",
                    {
                        "options": lora_choices(),
                        "tooltip": "A file in the loras folder or among the weights. Those for "
                        "other models are not listed.",
                    },
                ),
                "strength": ("FLOAT", _strength("Stage C and B are")),
            },
            "optional": {
                "stage_b": (
                    "WUERSTCHEN_STAGE_B",
                    {"tooltip": "For a LoRA that changes Stage B; may stay unwired."},
                ),
                "prior_text_encoder": (
                    "WUERSTCHEN_TEXT_ENCODER",
                    {"tooltip": "For a LoRA that changes it too; may stay unwired."},
                ),
                "strength_text": ("FLOAT", _strength("the text encoder is")),
            },
        }

    def load(
        self,
        stage_c: Part[Any],
        lora_name: str,
        strength: float,
        strength_text: float = 1.0,
        **more: Part[Any],
    ) -> dict[str, Any]:
        lora = read_lora(resolve(lora_name, "lora"))
        wired = {"stage_c": stage_c, **more}
        matches = {name: _match(lora, name, part) for name, part in wired.items()}
        if not any(found.modules for found in matches.values()):
            titles = [title for name, _, title, _ in _CHANGED if name in wired]
            raise nothing_fits(lora, matches.values(), " or ".join(titles))
        strengths = {name: strength for name in wired} | {"prior_text_encoder": strength_text}
        made = {
            name: _changed(part, lora, matches[name], strengths[name])
            for name, part in wired.items()
        }
        lines = report(lora, matches)
        runtime.report([f"{lora.path.name}: {line}" for line in lines])
        result = tuple(
            made[name] if name in made else unwired(name, "Load Würstchen LoRA")
            for name, _, _, _ in _CHANGED
        )
        return {"ui": {"text": lines}, "result": result}

    @classmethod
    def IS_CHANGED(cls, lora_name: str, **_: Any) -> str:
        return stamp(lora_name, "lora")


def _strength(subject: str) -> dict[str, Any]:
    return {
        "default": 1.0,
        "min": -10.0,
        "max": 10.0,
        "step": 0.05,
        "tooltip": f"How far {subject} changed: 0 not at all, 1 as trained, less than 0 the other "
        "way.",
    }


def _match(lora: LoraFile, name: str, part: Part[Any]) -> Match:
    return match(lora, part.content().state, text_encoder=name == "prior_text_encoder")


def _changed(part: Part[Any], lora: LoraFile, found: Match, strength: float) -> Part[Any]:
    if strength == 0 or not found.adapters:
        return part
    changes = found.changes(strength)
    return part.changed(changes, f"{part.made_of} + {strength:g} × {lora.path.name}")


def report(lora: LoraFile, matches: dict[str, Match]) -> list[str]:
    """What of a file was applied to which part, and what was not, one sentence each."""
    lines = []
    for name, _, title, _ in _CHANGED:
        if name in matches and matches[name].modules:
            of_text = name == "prior_text_encoder"
            count = sum(is_for_text(module) is of_text for module in lora.modules)
            lines.append(f"applied {len(matches[name].modules)} of {count} to {title}")
    lines += [sentence for found in matches.values() for sentence in found.misfits[:_LISTED]]
    rest = rest_of(lora, matches.values())
    text = [module for module in rest if is_for_text(module)]
    if text and "prior_text_encoder" not in matches:
        lines.append(
            f"not for Stage C: {len(text)} changes of the text encoder, which is not wired"
        )
        rest = [module for module in rest if module not in text]
    if rest:
        lines.append(f"not applied: {_some(rest)}")
    return lines


def _some(names: Sequence[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")


NODES = {"WuerstchenLoadLoRA": (LoadLoRA, "Load Würstchen LoRA")}
