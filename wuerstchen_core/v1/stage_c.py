"""Würstchen v1's Stage C: the same network, in another space and with other texts."""

from dataclasses import dataclass
from typing import ClassVar

from ..stage_c import StageCConfig


@dataclass(frozen=True)
class StageCV1Config(StageCConfig):
    """The prior samples what the image encoder makes, as it is: embedding space is its own.

    Its texts are those of CLIP-H, 1024 wide. Source: dome272/Wuerstchen `train_stage_C.py`, before
    the image encoder's output was scaled for v2 (commit 62fcb00).
    """

    family: ClassVar[str] = "v1/stage_c"
    latent_mean: ClassVar[float] = 1.0
    latent_std: ClassVar[float] = 0.0
