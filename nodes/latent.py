"""Latents: the empty one, one with seeds, and what all stages read from the LATENT dictionary."""

import re
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..wuerstchen_core.errors import SettingError, WireError
from ..wuerstchen_core.generate import check_latent
from ..wuerstchen_core.geometry import LARGEST, SMALLEST, Geometry
from ..wuerstchen_core.noise import SampleNoise
from .values import whole

Latent = dict[str, Any]  # ComfyUI's own form: {"samples": B×C×H×W, …}

SIZE_KEY = "wuerstchen_size"  # (width, height) in pixels that the user asked for
SEEDS_KEY = "wuerstchen_seeds"  # one a sample, in place of those that count from the widget's
V1_KEY = "wuerstchen_v1"  # set on what Würstchen v1's Stage C and image encoder made
STAGE_C_CHANNELS, STAGE_B_CHANNELS = 16, 4
MOST_PICTURES = 4096  # of a batch
LARGEST_SEED = 2**64 - 1

_BETWEEN = re.compile(r"[\s,;]+")
_RANGE = re.compile(r"(\d{1,20})(?:-(\d{1,20}))?")


def geometry_of(latent: Latent) -> Geometry:
    """The sizes of a Stage C latent: the asked one that it carries, else its whole canvas.

    Raises WireError for what is no Stage C latent.
    """
    samples = latent["samples"]
    check_latent(samples, "Stage C", STAGE_C_CHANNELS)
    whole = Geometry.of_stage_c((samples.shape[-2], samples.shape[-1]))
    asked = Geometry(*latent[SIZE_KEY]) if SIZE_KEY in latent else whole
    return asked if asked.canvas == whole.canvas else whole


def like(latent: Latent, samples: Tensor) -> Latent:
    """`samples` as a latent that keeps the other's asked size, seeds, batch indices and version."""
    keys = (SIZE_KEY, SEEDS_KEY, "batch_index", V1_KEY)
    return {"samples": samples, **{key: latent[key] for key in keys if key in latent}}


def refuse_v1(latent: Latent) -> None:
    """Raises WireError for a Stage C latent of Würstchen v1, whose numbers mean something else."""
    if latent.get(V1_KEY):
        raise WireError(
            "this latent comes from Würstchen v1's Stage C or image encoder; give it to the "
            "Würstchen v1 nodes."
        )


def noise_for(latent: Latent, seed: int) -> SampleNoise:
    """Sample i is seeded `seed + i`; one cut out of a batch (`batch_index`) keeps its own seed,
    and one with a seed of its own (`SEEDS_KEY`) has that.

    Raises WireError when the seeds or indices are not as many as the samples.
    """
    count, seed = len(latent["samples"]), whole("seed", seed, 0, LARGEST_SEED)
    if seeds := latent.get(SEEDS_KEY):
        if len(seeds) != count:
            raise WireError(
                f"this latent holds {count} samples and {len(seeds)} seeds; place Würstchen Seed "
                "List after the nodes that change the batch."
            )
        return SampleNoise(seeds)
    indices = latent.get("batch_index") or range(count)
    if len(indices) == 1:  # a blend of one picture with a batch: the same noise for all
        indices = list(indices) * count
    if len(indices) != count:
        raise WireError(
            f"this latent holds {count} samples and the batch indices of {len(indices)}; blend or "
            "batch latents of the same length."
        )
    return SampleNoise(seed + index for index in indices)


class EmptyLatent:
    """Where Stage C starts: size and batch."""

    CATEGORY = "Würstchen/latent"
    DESCRIPTION = (
        "The empty Stage C latent for a picture of any size. The model works on a canvas of the "
        "next multiples of 128; the picture is cut to exactly the size you ask for."
    )
    SEARCH_ALIASES: ClassVar[list[str]] = ["wuerstchen size", "empty latent", "resolution"]
    RETURN_TYPES = ("LATENT",)
    RETURN_NAMES = ("latent",)
    OUTPUT_TOOLTIPS = ("An empty Stage C latent, batch×16×height×width cells of 42.67 px.",)
    FUNCTION = "make"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        def side(name: str) -> tuple[str, dict[str, Any]]:
            tooltip = (
                f"Picture {name} in pixels, any number. The published model is trained for 1024 "
                "to 1536, the demo for 256."
            )
            limits = {"default": 1024, "min": SMALLEST, "max": LARGEST, "step": 1}
            return ("INT", {**limits, "tooltip": tooltip})

        batch = {
            "default": 1,
            "min": 1,
            "max": MOST_PICTURES,
            "tooltip": "How many pictures to make.",
        }
        return {
            "required": {
                "width": side("width"),
                "height": side("height"),
                "batch_size": ("INT", batch),
            }
        }

    def make(self, width: int, height: int, batch_size: int) -> tuple[Latent]:
        width = whole("width", width, SMALLEST, LARGEST)
        height = whole("height", height, SMALLEST, LARGEST)
        grid = Geometry(width, height).stage_c
        samples = torch.zeros(
            whole("batch_size", batch_size, 1, MOST_PICTURES), STAGE_C_CHANNELS, *grid
        )
        return ({"samples": samples, SIZE_KEY: (width, height)},)


def seeds_of(text: str) -> list[int]:
    """`1, 5, 42-45` -> [1, 5, 42, 43, 44, 45].

    Raises SettingError for anything else, and for more than MOST_PICTURES seeds.
    """
    seeds: list[int] = []
    for written in filter(None, _BETWEEN.split(re.sub(r"\s*-\s*", "-", text))):
        found = _RANGE.fullmatch(written)
        if found is None:
            raise SettingError(
                f"'{written[:40]}' is no seed; write numbers and ranges, as 1, 5, 42-45."
            )
        first = int(found[1])
        last = int(found[2] or first)
        if not first <= last <= LARGEST_SEED:
            raise SettingError(
                f"'{written}' is no range of seeds; they go from the smaller to the larger, up to "
                "2^64 - 1."
            )
        if len(seeds) + last - first >= MOST_PICTURES:
            raise SettingError(f"these are more than {MOST_PICTURES} seeds; write fewer.")
        seeds += range(first, last + 1)
    if not seeds:
        raise SettingError("there is no seed here; write numbers and ranges, as 1, 5, 42-45.")
    return seeds


class SeedList:
    """A latent -> a batch with a seed for each picture."""

    CATEGORY = "Würstchen/latent"
    DESCRIPTION = (
        "Repeats a latent for a list of seeds, one picture a seed. Each is the picture that its "
        "seed gives alone, and the samplers' own seed then counts for nothing."
    )
    SEARCH_ALIASES: ClassVar[list[str]] = ["seeds", "batch seeds", "repeat latent"]
    RETURN_TYPES = ("LATENT", "INT")
    RETURN_NAMES = ("latent", "count")
    OUTPUT_TOOLTIPS = ("The batch, one latent a seed.", "How many seeds there are.")
    FUNCTION = "repeat"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        tooltip = (
            "Numbers and ranges: 1, 5, 42-45. They take the place of the samplers' own seed, in "
            "Stage C and in Stage B."
        )
        return {
            "required": {
                "samples": (
                    "LATENT",
                    {"tooltip": "A latent to sample: one, or as many as there are seeds."},
                ),
                "seeds": ("STRING", {"default": "0-3", "multiline": False, "tooltip": tooltip}),
            }
        }

    def repeat(self, samples: Latent, seeds: str) -> tuple[Latent, int]:
        numbers, batch = seeds_of(seeds), samples["samples"]
        if len(batch) not in (1, len(numbers)):
            raise WireError(
                f"there are {len(numbers)} seeds for {len(batch)} latents; give one latent, or as "
                "many as seeds."
            )
        kept = {key: value for key, value in samples.items() if key != "batch_index"}
        repeated = batch.expand(len(numbers), *batch.shape[1:]).clone()
        return {**kept, "samples": repeated, SEEDS_KEY: numbers}, len(numbers)


NODES = {
    "WuerstchenEmptyLatent": (EmptyLatent, "Würstchen Empty Latent"),
    "WuerstchenSeedList": (SeedList, "Würstchen Seed List"),
}
