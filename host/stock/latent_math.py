"""Arithmetic on latents. What a latent carries beside its samples comes from the first one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...nodes.latent import Latent
from ...wuerstchen_core.errors import WireError
from .scaling import resize

ADVANCED = "model/latent/advanced"


def fitted(samples: Tensor, target: Tensor, method: str = "bilinear") -> Tensor:
    """`samples` at the height and width of `target`, the middle of it where shapes differ.

    Raises WireError for another number of channels: a latent of another stage.
    """
    if samples.shape[1] != target.shape[1]:
        raise WireError(
            f"one latent has {target.shape[1]} channels, the other {samples.shape[1]}; "
            "wire two latents of the same stage."
        )
    if samples.shape[1:] == target.shape[1:]:
        return samples
    return resize(samples, target.shape[-1], target.shape[-2], method, "center")


def repeated(batch: Tensor, count: int) -> Tensor:
    """The first `count` of a batch that is repeated as often as that takes."""
    times = -(-count // len(batch))
    return batch.repeat(times, *[1] * (batch.ndim - 1))[:count]


def _two(first: str, second: str, **more: Any) -> dict[str, Any]:
    return {
        "required": {
            "samples1": ("LATENT", {"tooltip": first}),
            "samples2": ("LATENT", {"tooltip": second}),
            **more,
        }
    }


# The tooltips of two latents that are `_matched`.
_MATCHED = (
    "The first latent; it gives the size and the batch.",
    "The second latent, resized and repeated to fit the first.",
)


def _matched(samples1: Latent, samples2: Latent) -> tuple[Tensor, Tensor]:
    first = samples1["samples"]
    return first, repeated(fitted(samples2["samples"], first), len(first))


class LatentBlend:
    DESCRIPTION = "Mixes two latents by weight."
    SEARCH_ALIASES: ClassVar[list[str]] = ["mix latents", "interpolate latents"]
    CATEGORY = "experimental"
    RETURN_TYPES = ("LATENT",)
    FUNCTION = "blend"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        factor = {"default": 0.5, "min": 0, "max": 1, "step": 0.01}
        tooltip = "Weight of the first: 1 is only the first, 0 only the second."
        return _two(
            "The first latent; it gives the size.",
            "The second latent, resized where it has another size.",
            blend_factor=("FLOAT", {**factor, "tooltip": tooltip}),
        )

    def blend(self, samples1: Latent, samples2: Latent, blend_factor: float) -> tuple[Latent]:
        first = samples1["samples"]
        second = fitted(samples2["samples"], first, "bicubic")
        if len(first) != len(second) and 1 not in (len(first), len(second)):
            raise WireError(
                f"one batch has {len(first)} latents, the other {len(second)}; give both the same "
                "number, or one of them a single latent."
            )
        return ({**samples1, "samples": first * blend_factor + second * (1 - blend_factor)},)


class _OfTwo:
    """Both cell by cell; the second batch is repeated or cut to the length of the first."""

    OPERATION: ClassVar[Callable[[Tensor, Tensor], Tensor]]
    CATEGORY = ADVANCED
    RETURN_TYPES = ("LATENT",)
    FUNCTION = "combine"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return _two(*_MATCHED)

    def combine(self, samples1: Latent, samples2: Latent) -> tuple[Latent]:
        first, second = _matched(samples1, samples2)
        return ({**samples1, "samples": type(self).OPERATION(first, second)},)


class LatentAdd(_OfTwo):
    DESCRIPTION = "Adds two latents."
    SEARCH_ALIASES: ClassVar[list[str]] = ["combine latents", "sum latents"]
    OPERATION = torch.add


class LatentSubtract(_OfTwo):
    DESCRIPTION = "Subtracts the second latent from the first."
    SEARCH_ALIASES: ClassVar[list[str]] = ["difference latent", "remove features"]
    OPERATION = torch.sub


class LatentMultiply:
    DESCRIPTION = "Multiplies a latent by a number."
    SEARCH_ALIASES: ClassVar[list[str]] = ["scale latent", "amplify latent", "latent gain"]
    CATEGORY = ADVANCED
    RETURN_TYPES = ("LATENT",)
    FUNCTION = "multiply"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        limits = {"default": 1.0, "min": -10.0, "max": 10.0, "step": 0.01}
        return {
            "required": {
                "samples": ("LATENT", {"tooltip": "The latent to multiply."}),
                "multiplier": ("FLOAT", {**limits, "tooltip": "1 changes nothing."}),
            }
        }

    def multiply(self, samples: Latent, multiplier: float) -> tuple[Latent]:
        return ({**samples, "samples": samples["samples"] * multiplier},)


class LatentInterpolate:
    DESCRIPTION = (
        "Goes from one latent to another along directions and lengths separately, which keeps "
        "more contrast than mixing."
    )
    SEARCH_ALIASES: ClassVar[list[str]] = [
        "blend latent",
        "mix latent",
        "lerp latent",
        "transition",
    ]
    CATEGORY = ADVANCED
    RETURN_TYPES = ("LATENT",)
    FUNCTION = "interpolate"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        limits = {"default": 1.0, "min": 0.0, "max": 1.0, "step": 0.01}
        tooltip = "Share of the first: 1 is only the first, 0 only the second."
        return _two(
            *_MATCHED,
            ratio=("FLOAT", {**limits, "tooltip": tooltip}),
        )

    def interpolate(self, samples1: Latent, samples2: Latent, ratio: float) -> tuple[Latent]:
        first, second = _matched(samples1, samples2)

        def mix(one: Tensor, other: Tensor) -> Tensor:
            return one * ratio + other * (1.0 - ratio)

        between, _ = _direction(mix(_direction(first)[0], _direction(second)[0]))
        length = mix(_direction(first)[1], _direction(second)[1])
        return ({**samples1, "samples": between * length},)


def _direction(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Each cell's vector over the channels: at length 1 (0 where it is 0), and its length."""
    length = torch.linalg.vector_norm(samples, dim=1, keepdim=True)
    return torch.nan_to_num(samples / length), length


NODES = {
    "LatentBlend": (LatentBlend, "Latent Blend"),
    "LatentAdd": (LatentAdd, "LatentAdd"),
    "LatentSubtract": (LatentSubtract, "LatentSubtract"),
    "LatentMultiply": (LatentMultiply, "LatentMultiply"),
    "LatentInterpolate": (LatentInterpolate, "LatentInterpolate"),
}
