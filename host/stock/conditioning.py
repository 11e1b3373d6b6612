"""Mixing texts that are already encoded: `[[states B×T×D, {options}], …]`."""

from __future__ import annotations

import logging
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ...nodes.text import Conditioning
from ...wuerstchen_core.errors import WireError

log = logging.getLogger(__name__)

CATEGORY = "model/conditioning/transform"
# Tensors in the options that belong to what the text says.
STATED = ("pooled_output", "conditioning_lyrics", "conditioning_scale")


def socket(tooltip: str) -> tuple[str, dict[str, Any]]:
    return ("CONDITIONING", {"tooltip": tooltip})


def _share(default: float, step: float, tooltip: str) -> tuple[str, dict[str, Any]]:
    limits = {"default": default, "min": 0.0, "max": 1.0, "step": step}
    return ("FLOAT", {**limits, "tooltip": tooltip})


def _first(conditioning: Conditioning) -> list[Any]:
    if len(conditioning) > 1:
        log.warning(
            "`conditioning_from` holds %d conditionings, of which only the first is read",
            len(conditioning),
        )
    return conditioning[0]


def _check_widths(to: Tensor, other: Tensor) -> None:
    if other.shape[-1] != to.shape[-1]:
        raise WireError(
            f"conditioning_from is {other.shape[-1]} wide, conditioning_to {to.shape[-1]}; wire "
            "texts of the same text encoder."
        )


class ConditioningCombine:
    DESCRIPTION = "Puts two conditionings side by side, for samplers that read several."
    SEARCH_ALIASES: ClassVar[list[str]] = [
        "combine",
        "merge conditioning",
        "combine prompts",
        "merge prompts",
        "mix prompts",
        "add prompt",
    ]
    ESSENTIALS_CATEGORY = "Image Generation"
    CATEGORY = CATEGORY
    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "combine"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "conditioning_1": socket("The first text."),
                "conditioning_2": socket("The second text."),
            }
        }

    def combine(
        self, conditioning_1: Conditioning, conditioning_2: Conditioning
    ) -> tuple[Conditioning]:
        return (conditioning_1 + conditioning_2,)


class ConditioningAverage:
    DESCRIPTION = "Mixes two texts by weight, so that a picture shows something of both."
    SEARCH_ALIASES: ClassVar[list[str]] = [
        "blend prompts",
        "interpolate conditioning",
        "mix prompts",
        "style fusion",
        "weighted blend",
    ]
    CATEGORY = CATEGORY
    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "average"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        strength = "Weight of conditioning_to: 1 is only that one, 0 only the other."
        return {
            "required": {
                "conditioning_to": socket("The text that gives length and settings."),
                "conditioning_from": socket("The text to mix in, cut or filled with zeros."),
                "conditioning_to_strength": _share(1.0, 0.01, strength),
            }
        }

    def average(
        self,
        conditioning_to: Conditioning,
        conditioning_from: Conditioning,
        conditioning_to_strength: float,
    ) -> tuple[Conditioning]:
        def mix(to: Tensor, other: Tensor) -> Tensor:
            return to * conditioning_to_strength + other * (1.0 - conditioning_to_strength)

        mixed: Conditioning = []
        other, other_options = _first(conditioning_from)
        pooled = other_options.get("pooled_output")
        for states, options in conditioning_to:
            _check_widths(states, other)
            tokens = states.shape[1]
            fitted = F.pad(other[:, :tokens], (0, 0, 0, max(0, tokens - other.shape[1])))
            options = dict(options)
            if pooled is not None:
                own = options.get("pooled_output")
                options["pooled_output"] = pooled if own is None else mix(own, pooled)
            mixed.append([mix(states, fitted), options])
        return (mixed,)


class ConditioningConcat:
    DESCRIPTION = "Puts the tokens of a second text behind those of the first."
    CATEGORY = CATEGORY
    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "join"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "conditioning_to": socket("The text that comes first and gives the settings."),
                "conditioning_from": socket("The text to put behind it."),
            }
        }

    def join(
        self, conditioning_to: Conditioning, conditioning_from: Conditioning
    ) -> tuple[Conditioning]:
        joined: Conditioning = []
        more, _ = _first(conditioning_from)
        for states, options in conditioning_to:
            _check_widths(states, more)
            joined.append([torch.cat([states, more], dim=1), dict(options)])
        return (joined,)


class ConditioningZeroOut:
    DESCRIPTION = "A conditioning of the same shape that says nothing: all zeros."
    SEARCH_ALIASES: ClassVar[list[str]] = ["null conditioning", "clear conditioning"]
    CATEGORY = CATEGORY
    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "zero_out"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"conditioning": socket("Any text, for its shape.")}}

    def zero_out(self, conditioning: Conditioning) -> tuple[Conditioning]:
        zeroed: Conditioning = []
        for states, options in conditioning:
            stated = {key: options[key] for key in STATED if options.get(key) is not None}
            zeros = {key: torch.zeros_like(value) for key, value in stated.items()}
            zeroed.append([torch.zeros_like(states), {**options, **zeros}])
        return (zeroed,)


class ConditioningSetTimestepRange:
    DESCRIPTION = "Limits a text to a part of the sampling, for samplers that heed it."
    CATEGORY = CATEGORY
    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "set_range"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "conditioning": socket("The text to limit."),
                "start": _share(0.0, 0.001, "Where it begins to count: 0 is the first step."),
                "end": _share(1.0, 0.001, "Where it ends to count: 1 is the last step."),
            }
        }

    def set_range(
        self, conditioning: Conditioning, start: float, end: float
    ) -> tuple[Conditioning]:
        limits = {"start_percent": start, "end_percent": end}
        return ([[states, {**options, **limits}] for states, options in conditioning],)


NODES = {
    "ConditioningCombine": (ConditioningCombine, "Conditioning (Combine)"),
    "ConditioningAverage": (ConditioningAverage, "Conditioning (Average)"),
    "ConditioningConcat": (ConditioningConcat, "Conditioning (Concat)"),
    "ConditioningZeroOut": (ConditioningZeroOut, "Conditioning Zero Out"),
    "ConditioningSetTimestepRange": (ConditioningSetTimestepRange, "ConditioningSetTimestepRange"),
}
