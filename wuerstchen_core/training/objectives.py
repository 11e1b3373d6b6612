"""The training objectives of the diffusion stages.

Sources: dome272/Wuerstchen `train_stage_C.py` and `train_stage_B.py`, paper appendix E.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ..schedule import add_noise, alpha_bar_of
from ..stage_c import from_embedding, to_embedding

LossWeight = Callable[[Tensor], Tensor]


def shifted_times(n: int, generator: torch.Generator) -> Tensor:
    """The published draw: (1 - u)·1.08 + 0.001, clamped to [0.001, 1]: a little more pure noise."""
    return ((1 - torch.rand(n, generator=generator)) * 1.08 + 0.001).clamp(0.001, 1)


def stratified_times(
    n: int, generator: torch.Generator, low: float = 0.01, high: float = 1.0, power: float = 1.0
) -> Tensor:
    """One time in each of n equal slices of [low, high]: less noise in the loss of small batches.

    power: below 1, more of the times lie near `high`.
    """
    slices = (torch.arange(n) + torch.rand(n, generator=generator)) / n
    return low + (high - low) * slices[torch.randperm(n, generator=generator)] ** power


def p2_weight(t: Tensor) -> Tensor:
    """1 - alpha_bar: P2 weighting with k = gamma = 1 (Choi et al. 2022), as the authors trained."""
    return 1 - alpha_bar_of(t)


def x0_weight(t: Tensor, lowest: float = 1.0, highest: float = 50.0) -> Tensor:
    """1/SNR within limits: between them the eps error counts as the x0 error that it causes.

    The lower limit bounds how little low noise counts; 1 is the truncated SNR weight of Salimans
    and Ho (2022). The upper one is needed because the division that turns x0 into eps amplifies
    rounding near t = 1. Small models need high noise, where the layout is decided, to count.
    """
    signal = alpha_bar_of(t)
    return ((1 - signal) / signal).clamp(lowest, highest)


def diffusion_loss(
    predict: Callable[[Tensor, Tensor], Tensor],
    x0: Tensor,
    t: Tensor,
    generator: torch.Generator,
    weight: LossWeight = p2_weight,
) -> Tensor:
    """The weighted eps error, one value a sample: B. predict: (x_t, t) -> eps; x0: B×C×H×W."""
    noise = torch.randn(x0.shape, generator=generator).to(x0.device)
    eps = predict(add_noise(x0, noise, t), t)
    return (eps.float() - noise).square().mean(dim=(1, 2, 3)) * weight(t)


def corrupt_embedding(
    embedding: Tensor,
    generator: torch.Generator,
    drop: float = 0.05,
    noised: float = 0.3,
    strongest: float = 0.5,
) -> Tensor:
    """What Stage B reads in training: 5 % zeros, else 30 % noised at t in [0, 0.5] (train_stage_B).

    embedding: B×16×h×w in embedding space; the noise is added in the prior's space,
    where the values have unit variance, so that Stage B learns to forgive the prior's errors.
    """
    n = len(embedding)
    choice = torch.rand(n, 1, 1, 1, generator=generator)
    t = torch.rand(n, generator=generator) * strongest
    noise = torch.randn(embedding.shape, generator=generator)
    noisy = to_embedding(add_noise(from_embedding(embedding), noise, t))
    kept = torch.where(choice < drop + (1 - drop) * noised, noisy, embedding)
    return torch.where(choice < drop, torch.zeros_like(kept), kept)


def drop_captions(captions: list[str], share: float, generator: torch.Generator) -> list[str]:
    """Some captions become "", which trains the unconditional branch of guidance."""
    dropped = torch.rand(len(captions), generator=generator) < share
    return ["" if gone else text for text, gone in zip(captions, dropped.tolist(), strict=True)]
