"""What LoRAs and merging read of a part: its weights as files hold them."""

from collections.abc import Callable
from pathlib import Path

from ..wuerstchen_core.checkpoints.configs import STAGE_B, STAGE_C
from ..wuerstchen_core.checkpoints.load import Weights, network_of, open_weights, stage_b_of
from ..wuerstchen_core.checkpoints.text import open_text_encoder, text_encoder_of
from . import runtime
from .parts import Stored


def stored_as(name: str, path: Callable[[], Path], dtype: str) -> Stored | None:
    """Those of a part, as the loaders' outputs are called; None where nothing changes them."""
    if name == "stage_c":
        return stored_stage_c(lambda: open_weights(STAGE_C, path()), dtype)
    if name == "stage_b":
        return Stored(
            lambda: open_weights(STAGE_B, path()),
            lambda weights, kept: stage_b_of(weights, dtype, None, kept),
        )
    if name.endswith("text_encoder"):
        tokenizers = runtime.tokenizer_folders()
        return Stored(
            lambda: open_text_encoder(path(), tokenizers),
            lambda weights, kept: text_encoder_of(weights, dtype, None, kept),
        )
    return None


def stored_stage_c(opened: Callable[[], Weights], dtype: str) -> Stored:
    """Weights of Stage C, which no file needs to hold."""
    return Stored(opened, lambda weights, kept: network_of(STAGE_C, weights, dtype, None, kept))
