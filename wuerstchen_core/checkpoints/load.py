"""Weights on disk -> networks, ready for inference."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import ForeignCheckpointError, MismatchedCheckpointError
from ..fold import fold_embedding_mappers
from ..image_encoder import ImageEncoder
from ..optimize import PLAIN, Optimization, placed
from ..residency import Network, pick_device, pick_dtype
from ..stage_a import StageA
from ..stage_b import StageB
from ..stage_c import StageC
from .configs import (
    IMAGE_ENCODER,
    STAGE_A,
    STAGE_B,
    STAGE_C,
    Architecture,
    build_empty,
    derive_config,
    disagreements,
    read_config,
)
from .fit import completed, filled, problems_of, state_of_kind
from .read import State
from .rename import to_diffusers_names
from .source import find_source, read_source

CLIP_H_WIDTH = 1024  # v2 priors read CLIP-bigG, 1280 wide


def load_stage_c(
    path: Path,
    dtype: str = "auto",
    device: torch.device | None = None,
    optimization: Optimization = PLAIN,
) -> StageC:
    """A folder with config.json and weights, or a file of weights -> Stage C.

    dtype: a name of `residency.DTYPES`; device: where it computes, None picks the best. Raises
    CheckpointError, and SettingError for a dtype that the device cannot use; so do the other
    loaders.
    """
    return _load(STAGE_C, path, dtype, device, optimization)


def load_stage_b(
    path: Path,
    dtype: str = "auto",
    device: torch.device | None = None,
    optimization: Optimization = PLAIN,
    fold: bool = True,
) -> StageB:
    """Like `load_stage_c`. fold: see `fold.py`; training and saving need the unfolded form."""
    if not fold:
        return _load(STAGE_B, path, dtype, device, optimization)
    device = device or pick_device()
    target = pick_dtype(dtype, device)
    weights = open_weights(STAGE_B, path)
    network = filled(
        lambda: StageB(weights.config, folded=True),
        fold_embedding_mappers(weights.state, weights.config, target),
    )
    return placed(network, device, target, optimization)


def load_stage_a(
    path: Path,
    dtype: str = "auto",
    device: torch.device | None = None,
    optimization: Optimization = PLAIN,
) -> StageA:
    """Like `load_stage_c`."""
    return _load(STAGE_A, path, dtype, device, optimization)


def load_image_encoder(
    path: Path,
    dtype: str = "auto",
    device: torch.device | None = None,
    optimization: Optimization = PLAIN,
) -> ImageEncoder:
    """Like `load_stage_c`; takes the `effnet_state_dict` of a file that also holds Stage B."""
    return _load(IMAGE_ENCODER, path, dtype, device, optimization)


def _load(
    architecture: Architecture[Network],
    path: Path,
    dtype: str,
    device: torch.device | None,
    optimization: Optimization,
) -> Network:
    device = device or pick_device()
    target = pick_dtype(dtype, device)
    weights = open_weights(architecture, path)
    network = filled(lambda: architecture.build(weights.config), weights.state)
    return placed(network, device, target, optimization)


@dataclass(frozen=True)
class Weights:
    """Weights that fit their config exactly, still on disk where the file allows it."""

    config: Any
    state: State


def open_weights(architecture: Architecture[Any], path: Path) -> Weights:
    """A folder with config.json and weights, or a file of weights. Raises CheckpointError."""
    source = find_source(path)
    state = to_diffusers_names(state_of_kind(read_source(source), architecture.kind, path))
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    if source.config is None:
        config = derive_config(architecture, shapes)
    else:
        config = read_config(architecture, source.config)
    expected = build_empty(architecture, config).state_dict()
    if problems := problems_of(state, expected):
        if source.config is not None:
            problems = disagreements(architecture, config, shapes) or problems
        raise MismatchedCheckpointError(f"{path} does not fit: {'; '.join(problems)}.")
    if architecture is STAGE_C and config.c_cond == CLIP_H_WIDTH:
        raise ForeignCheckpointError(
            f"{path} reads CLIP-H states ({CLIP_H_WIDTH} wide): a Würstchen v1 prior; only v2 "
            "priors, which read CLIP-bigG (1280 wide), are supported."
        )
    return Weights(config, completed(state, expected))
