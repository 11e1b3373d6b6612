"""Batches of latents: taking from them, repeating and joining them.

A latent may say in `batch_index` which numbers its samples had in an earlier batch; the samplers
seed by these numbers, so a picture taken out of a batch stays the same picture.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from ...nodes.latent import Latent
from .latent_math import fitted, repeated

CATEGORY = "model/latent/batch"


def _indices(latent: Latent) -> list[int]:
    return latent.get("batch_index", list(range(len(latent["samples"]))))


class LatentFromBatch:
    DESCRIPTION = (
        "Takes some latents out of a batch. They keep their numbers, so a sampler makes the same "
        "pictures of them as in the whole batch."
    )
    SEARCH_ALIASES: ClassVar[list[str]] = ["select from batch", "pick latent", "batch subset"]
    CATEGORY = CATEGORY
    RETURN_TYPES = ("LATENT",)
    FUNCTION = "take"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        first = {"default": 0, "min": -16384, "max": 16384}
        length = {"default": 1, "min": 1, "max": 64}
        tooltip = "Number of the first one, from 0; negative numbers count from the end."
        return {
            "required": {
                "samples": ("LATENT", {"tooltip": "The batch."}),
                "batch_index": ("INT", {**first, "tooltip": tooltip}),
                "length": ("INT", {**length, "tooltip": "How many to take, where there are."}),
            }
        }

    def take(self, samples: Latent, batch_index: int, length: int) -> tuple[Latent]:
        count = len(samples["samples"])
        first = batch_index + count if batch_index < 0 else batch_index
        first = max(0, min(first, count - 1))
        part = slice(first, first + length)
        taken = {
            **samples,
            "samples": samples["samples"][part].clone(),
            "batch_index": _indices(samples)[part],
        }
        mask = samples.get("noise_mask")
        if mask is not None and len(mask) > 1:  # a single one is for all
            taken["noise_mask"] = repeated(mask, count)[part].clone()
        return (taken,)


class RepeatLatentBatch:
    DESCRIPTION = "Repeats a whole batch of latents; a sampler seeds each repetition anew."
    SEARCH_ALIASES: ClassVar[list[str]] = ["duplicate latent", "clone latent"]
    CATEGORY = CATEGORY
    RETURN_TYPES = ("LATENT",)
    FUNCTION = "repeat"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        amount = {"default": 1, "min": 1, "max": 64, "tooltip": "How often the batch occurs."}
        return {
            "required": {
                "samples": ("LATENT", {"tooltip": "The batch to repeat."}),
                "amount": ("INT", amount),
            }
        }

    def repeat(self, samples: Latent, amount: int) -> tuple[Latent]:
        result = {**samples, "samples": _times(samples["samples"], amount)}
        mask = samples.get("noise_mask")
        if mask is not None and len(mask) > 1:
            result["noise_mask"] = _times(mask, amount)
        if "batch_index" in samples:
            indices = samples["batch_index"]
            spread = max(indices) - min(indices) + 1
            result["batch_index"] = [i + n * spread for n in range(amount) for i in indices]
        return (result,)


def _times(batch: Tensor, amount: int) -> Tensor:
    return batch.repeat(amount, *[1] * (batch.ndim - 1))


class LatentBatch:
    DESCRIPTION = "Joins two batches of latents; the second is brought to the size of the first."
    SEARCH_ALIASES: ClassVar[list[str]] = ["combine latents", "merge latents", "join latents"]
    CATEGORY = CATEGORY
    DEPRECATED = True
    RETURN_TYPES = ("LATENT",)
    FUNCTION = "join"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "samples1": ("LATENT", {"tooltip": "The first latents; they give the size."}),
                "samples2": ("LATENT", {"tooltip": "The latents after them."}),
            }
        }

    def join(self, samples1: Latent, samples2: Latent) -> tuple[Latent]:
        first = samples1["samples"]
        both = torch.cat([first, fitted(samples2["samples"], first)])
        return (
            {
                **samples1,
                "samples": both,
                "batch_index": _indices(samples1) + _indices(samples2),
            },
        )


NODES = {
    "LatentFromBatch": (LatentFromBatch, "Get Latent From Batch"),
    "RepeatLatentBatch": (RepeatLatentBatch, "Repeat Latent Batch"),
    "LatentBatch": (LatentBatch, "Batch Latents (DEPRECATED)"),
}
