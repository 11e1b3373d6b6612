"""What a picture is sampled under: texts, and where and when each of them counts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from .errors import WireError

# What a network's `prepare` reads, each B×…; None for what is not wired.
Inputs: TypeAlias = tuple[Tensor | None, ...]


@dataclass(frozen=True, eq=False)
class Text:
    """A text's states, B×T×D or 1×T×D, and where and when it counts.

    mask: 1 or B×1×H×W in [0, 1] over the whole canvas, any size; None is everywhere.
    strength: its weight beside other texts.
    start, end: shares of the way from noise (0) to picture (1), as ComfyUI's time ranges.
    """

    states: Tensor
    mask: Tensor | None = None
    strength: float = 1.0
    start: float = 0.0
    end: float = 1.0


# One text that counts everywhere, or several that share picture and time.
Texts: TypeAlias = Tensor | Sequence[Text]


@dataclass(frozen=True, eq=False)
class Condition:
    """What a network reads for a batch, and where and when its prediction counts.

    weight: beside the other conditions of its branch, a number or B×1×h×w on the latent's grid.
    start, end: it counts at times t with start >= t >= end.
    """

    inputs: Inputs
    weight: Tensor | float = 1.0
    start: float = 1.0
    end: float = 0.0

    def of(self, samples: slice) -> "Condition":
        """The same for a part of the batch."""
        inputs = tuple(None if one is None else one[samples] for one in self.inputs)
        weight = self.weight[samples] if isinstance(self.weight, Tensor) else self.weight
        return replace(self, inputs=inputs, weight=weight)

    @property
    def shapes(self) -> tuple[torch.Size | None, ...]:
        """Conditions of the same shapes go through a network in one batch."""
        return tuple(None if one is None else one.shape for one in self.inputs)


# What predicts one eps: conditions whose predictions are averaged by their weights.
Branch: TypeAlias = list[Condition]


@dataclass(frozen=True)
class Target:
    """What texts are for. name: of the wire, for errors; stage: "Stage C" or "Stage B"."""

    stage: str
    batch: int
    width: int  # of the states that the stage reads
    grid: tuple[int, int]
    device: torch.device


def branch_of(
    texts: Texts, name: str, target: Target, around: Callable[[Tensor], Inputs]
) -> Branch:
    """The branch that texts make. name: of their wire. around: states -> a network's inputs.

    Raises WireError for states that belong elsewhere, and where some of the picture or of the time
    is under no text.
    """
    if isinstance(texts, Tensor):
        texts = [Text(texts)]
    branch = [
        Condition(
            around(_states(text.states, target).to(target.device)),
            _weight(text, target),
            1 - text.start,
            1 - text.end,
        )
        for text in texts
    ]
    _check_cover(branch, name)
    return branch


def _states(states: Tensor, target: Target) -> Tensor:
    """Text states for each sample; one text serves a whole batch."""
    if states.ndim != 3 or states.shape[-1] != target.width:
        raise WireError(
            f"this conditioning has the shape {tuple(states.shape)}; {target.stage} reads "
            f"batch×tokens×{target.width}. Encode the text with the text encoder that belongs to "
            f"{target.stage}."
        )
    if len(states) not in (1, target.batch):
        raise WireError(
            f"there are {len(states)} texts for {target.batch} latents; give one text, or one a "
            "latent."
        )
    return states.expand(target.batch, -1, -1)


def _weight(text: Text, target: Target) -> Tensor | float:
    if text.mask is None:
        return text.strength
    return on_grid(text.mask, target.grid, target.batch).to(target.device) * text.strength


def on_grid(mask: Tensor, grid: tuple[int, int], batch: int) -> Tensor:
    """A mask over the canvas, 1 or B×1×H×W -> B×1×h×w: each cell the mean of what it covers.

    Raises WireError for masks that are not as many as the samples.
    """
    if len(mask) not in (1, batch):
        raise WireError(
            f"there are {len(mask)} masks for {batch} latents; give one mask, or one a latent."
        )
    return F.adaptive_avg_pool2d(mask.float(), grid).expand(batch, -1, -1, -1)


def _check_cover(branch: Branch, name: str) -> None:
    """Every place needs a text at every time: without one the prediction would be nothing."""
    ends = {time for one in branch for time in (one.start, one.end)}
    moments = sorted({0.0, 1.0, *(time for time in ends if 0 < time < 1)})
    between = [(a + b) / 2 for a, b in zip(moments, moments[1:], strict=False)]
    for t in (*moments, *between):
        counting = [one.weight for one in branch if one.start >= t >= one.end]
        if not counting:
            raise WireError(
                f"no text of `{name}` counts {1 - t:.0%} of the way from noise to picture; widen "
                "a time range, or combine with a text that has none."
            )
        total = sum(counting[1:], start=counting[0])
        if not bool((torch.as_tensor(total) > 0).all()):
            raise WireError(
                f"some of the picture is under no text of `{name}`; combine the masked texts with "
                "one that has no mask, or widen a mask."
            )
