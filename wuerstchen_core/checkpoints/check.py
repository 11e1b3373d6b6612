"""Whether a part can be loaded, told without its weights in memory."""

from collections.abc import Sequence
from pathlib import Path

import torch

from ..residency import pick_device, pick_dtype
from .configs import IMAGE_ENCODER, STAGE_A, STAGE_B, STAGE_C
from .load import find_weights
from .text import check_text_encoder

_ARCHITECTURES = {
    "stage_c": STAGE_C,
    "stage_b": STAGE_B,
    "stage_a": STAGE_A,
    "image_encoder": IMAGE_ENCODER,
}


def check_part(
    part: str,
    path: Path,
    dtype: str = "auto",
    device: torch.device | None = None,
    tokenizers: Sequence[Path] = (),
) -> None:
    """Raises what loading would raise: CheckpointError, and SettingError for the dtype.

    part: its name in `folder.Parts`. tokenizers: see `load_text_encoder`. Reads config, names and
    shapes; the weights stay on disk where the file's format allows it.
    """
    pick_dtype(dtype, device or pick_device())
    if part in _ARCHITECTURES:
        find_weights(_ARCHITECTURES[part], path)
    else:
        check_text_encoder(path, tokenizers)
