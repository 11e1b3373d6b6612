"""Paella's sampling: all tokens are predicted at once, some of them are made random again, …

Source: dome272/Wuerstchen `modules.py` (`sample`, `Paella.add_noise`); Rampas et al. 2022.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from ..errors import SettingError
from ..noise import SampleNoise
from ..sampling import Callback, StepInfo
from ..stage_a import nearest

MODES = ("multinomial", "argmax", "quant")

# Tokens whose logits are in memory at once, of one sample.
TOKENS_AT_ONCE = 512

# (tokens B×H×W, time) -> what logits are a linear map of, B×C×H×W.
Predict: TypeAlias = Callable[[Tensor, float], Tensor]
# Of those, any part -> logits.
Logits: TypeAlias = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class TokenSettings:
    """How tokens are sampled; the presets are those of the original's v1 notebook.

    steps: calls of the model.
    cfg, temperature: at the first and the last step, linear between. A cfg of 1 does not guide.
    mode: "multinomial" draws each token by its probability, "argmax" takes the likeliest; "quant"
        takes the codebook's mean by the probabilities, and of the codebook what lies nearest.
    start, end: times between which the steps lie; 1 is all tokens random.

    Raises SettingError for values out of range.
    """

    steps: int = 8
    cfg: tuple[float, float] = (2.0, 2.0)
    temperature: tuple[float, float] = (1.0, 0.6)
    mode: str = "multinomial"
    start: float = 1.0
    end: float = 0.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise SettingError(f"steps is {self.steps}; at least 1 is expected.")
        if min(self.temperature) <= 0:
            raise SettingError(
                f"temperature goes from {self.temperature[0]} to {self.temperature[1]}; above 0 is "
                "expected. The mode argmax is what a temperature of 0 would be."
            )
        if self.mode not in MODES:
            raise SettingError(f"mode is {self.mode!r}; choose one of {', '.join(MODES)}.")
        if not 1 >= self.start >= self.end >= 0:
            raise SettingError(
                f"the steps go from {self.start} to {self.end}; times between 1 and 0 are expected."
            )

    @property
    def guides(self) -> bool:
        return self.cfg != (1.0, 1.0)

    @property
    def times(self) -> list[float]:
        """The times of the model's calls, and the one to end at."""
        return torch.linspace(self.start, self.end, self.steps + 1).tolist()

    def cfg_at(self, step: int) -> float:
        return _between(self.cfg, step, self.steps)

    def temperature_at(self, step: int) -> float:
        return _between(self.temperature, step, self.steps)


def _between(ends: tuple[float, float], step: int, steps: int) -> float:
    return torch.linspace(*ends, steps)[step].item()


@dataclass(frozen=True)
class Known:
    """What inpainting keeps. tokens: B×H×W; mask: B×H×W, true where they are kept."""

    tokens: Tensor
    mask: Tensor

    def within(self, tokens: Tensor) -> Tensor:
        return torch.where(self.mask, self.tokens, tokens)


def renoised(tokens: Tensor, t: float, random: Tensor, noise: SampleNoise) -> Tensor:
    """Each token B×H×W is replaced by that of `random` with the probability t."""
    chance = noise.uniform(tuple(tokens.shape[1:]), tokens.device)
    return torch.where(chance <= t, random, tokens)


@torch.no_grad()
def sample(
    model: Predict,
    logits: Logits,
    start: Tensor,
    random: Tensor,
    settings: TokenSettings,
    noise: SampleNoise,
    codebook: Tensor | None = None,
    known: Known | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Tokens B×H×W at `settings.start` -> tokens at `settings.end`.

    random: B×H×W tokens, what those that are made random again become: the same at every step.
    noise: numbers in [0, 1) for each token, those that pick it (in the mode multinomial), then
    those that decide whether it is made random; after the last step none is. codebook: Stage A's,
    N×C, for the mode quant. known: is put back after each step, so that what is made random of it
    is as random as the rest. callback: is told of the tokens picked, as B×1×H×W.
    """
    if settings.mode == "quant" and codebook is None:
        raise SettingError(
            "the mode quant needs Stage A's codebook; wire `stage_a`, or choose another mode."
        )
    tokens, times = start, settings.times
    for step in range(settings.steps):
        features = model(tokens, times[step])
        pick = _Pick(logits, settings, step, codebook)
        if settings.mode == "multinomial":
            chances = noise.uniform(tuple(tokens.shape[1:]), tokens.device)
            tokens = torch.stack([pick(*one) for one in zip(features, chances, strict=True)])
        else:
            tokens = torch.stack([pick(one) for one in features])
        if known is not None:
            tokens = known.within(tokens)
        if callback is not None:
            t, t_next = times[step : step + 2]
            callback(StepInfo(step, settings.steps, t, t_next, tokens[:, None]))
        if step < settings.steps - 1:
            tokens = renoised(tokens, times[step + 1], random, noise)
    return tokens


class _Pick:
    """Features of one sample, C×H×W -> its tokens H×W, a few rows of logits at a time."""

    def __init__(
        self, logits: Logits, settings: TokenSettings, step: int, codebook: Tensor | None
    ) -> None:
        self._logits = logits
        self._mode = settings.mode
        self._temperature = settings.temperature_at(step)
        self._codebook = codebook

    def __call__(self, features: Tensor, chances: Tensor | None = None) -> Tensor:
        rows = max(1, TOKENS_AT_ONCE // features.shape[-1])
        tops = range(0, features.shape[-2], rows)
        parts = (slice(top, top + rows) for top in tops)
        return torch.cat(
            [
                self._tokens(features[:, part], None if chances is None else chances[part])
                for part in parts
            ]
        )

    def _tokens(self, features: Tensor, chances: Tensor | None) -> Tensor:
        logits = self._logits(features[None])[0].movedim(0, -1).contiguous()  # h×W×N
        if self._mode == "argmax":
            return logits.argmax(dim=-1)
        probabilities = (logits / self._temperature).softmax(dim=-1)
        if chances is not None:
            return drawn(probabilities, chances)
        assert self._codebook is not None
        return nearest(probabilities @ self._codebook, self._codebook)


def drawn(probabilities: Tensor, chances: Tensor) -> Tensor:
    """Tokens …×N by their probabilities, each by one number of `chances` in [0, 1)."""
    upper = probabilities.cumsum(dim=-1)  # which ends near 1
    tokens = torch.searchsorted(upper, chances[..., None] * upper[..., -1:], right=True)[..., 0]
    return tokens.clamp(max=probabilities.shape[-1] - 1)
