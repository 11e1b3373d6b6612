"""Weights on disk -> networks, ready for inference."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import ForeignCheckpointError, MismatchedCheckpointError
from ..fold import fold_embedding_mappers
from ..image_encoder import ImageEncoder
from ..optimize import PLAIN, Optimization, placed
from ..residency import Network, pick_device, pick_dtype
from ..stage_a import StageA
from ..stage_b import StageB
from ..stage_c import StageC
from ..v1.paella import Paella
from .configs import (
    IMAGE_ENCODER,
    IMAGE_ENCODER_V1,
    STAGE_A,
    STAGE_B,
    STAGE_B_V1,
    STAGE_C,
    STAGE_C_V1,
    Architecture,
    build_empty,
    check_counts,
    derive_config,
    disagreements,
    read_config,
)
from .fit import completed, filled, problems_of, state_of_kind
from .read import State
from .rename import to_diffusers_names
from .scaled import Multiplied, split_scales
from .source import find_source, read_source

# Priors differ between versions by the texts they read: the width that is the other version's, and
# what to say of it.
_OTHER_PRIORS = {
    STAGE_C: (
        1024,
        "reads CLIP-H states (1024 wide): a Würstchen v1 prior, or an early v2 one. v2 priors read "
        "CLIP-bigG (1280 wide); load this one's folder with Load Würstchen v1 Pipeline.",
    ),
    STAGE_C_V1: (
        1280,
        "reads CLIP-bigG states (1280 wide): a Würstchen v2 prior. v1 priors read CLIP-H (1024 "
        "wide); load this one with Load Würstchen Stage C.",
    ),
}


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
    pick_dtype(dtype, device or pick_device())  # what cannot be used is told before reading
    return stage_b_of(open_weights(STAGE_B, path), dtype, device, optimization)


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


def load_stage_c_v1(
    path: Path,
    dtype: str = "auto",
    device: torch.device | None = None,
    optimization: Optimization = PLAIN,
) -> StageC:
    """Like `load_stage_c`, for v1's, or an early v2 one that reads CLIP-H."""
    return _load(STAGE_C_V1, path, dtype, device, optimization)


def load_stage_b_v1(
    path: Path,
    dtype: str = "auto",
    device: torch.device | None = None,
    optimization: Optimization = PLAIN,
) -> Paella:
    """Like `load_stage_c`, for v1's Stage B."""
    return _load(STAGE_B_V1, path, dtype, device, optimization)


def load_image_encoder_v1(
    path: Path,
    dtype: str = "auto",
    device: torch.device | None = None,
    optimization: Optimization = PLAIN,
) -> ImageEncoder:
    """Like `load_image_encoder`, for v1's."""
    return _load(IMAGE_ENCODER_V1, path, dtype, device, optimization)


def _load(
    architecture: Architecture[Network],
    path: Path,
    dtype: str,
    device: torch.device | None,
    optimization: Optimization,
) -> Network:
    pick_dtype(dtype, device or pick_device())
    weights = open_weights(architecture, path)
    return network_of(architecture, weights, dtype, device, optimization)


def network_of(
    architecture: Architecture[Network],
    weights: "Weights",
    dtype: str = "auto",
    device: torch.device | None = None,
    optimization: Optimization = PLAIN,
) -> Network:
    """Weights that are open -> the network, as the loaders give it; Stage B unfolded."""
    device = device or pick_device()
    network = filled(lambda: architecture.build(weights.config), weights.state)
    return placed(network, device, pick_dtype(dtype, device), optimization)


def stage_b_of(
    weights: "Weights",
    dtype: str = "auto",
    device: torch.device | None = None,
    optimization: Optimization = PLAIN,
) -> StageB:
    """Stage B's weights that are open -> the folded network."""
    device = device or pick_device()
    target = pick_dtype(dtype, device)
    folded = fold_embedding_mappers(weights.state, weights.config, target)
    network = filled(lambda: StageB(weights.config, folded=True), folded)
    return placed(network, device, target, optimization)


@dataclass(frozen=True)
class Weights:
    """Weights that fit their config exactly, still on disk where the file allows it.

    scales: by the names of weights that are stored in float8, what to multiply them by.
    """

    config: Any
    state: Mapping[str, Tensor]
    scales: State = field(default_factory=dict)


def open_weights(architecture: Architecture[Any], path: Path) -> Weights:
    """A folder with config.json and weights, or a file of weights. Raises CheckpointError."""
    weights = find_weights(architecture, path)
    return Weights(weights.config, Multiplied(weights.state, weights.scales))


def find_weights(architecture: Architecture[Any], path: Path) -> Weights:
    """Like `open_weights`, as they are stored: the data is not touched."""
    source = find_source(path)
    state = state_of_kind(read_source(source), architecture.kind, path)
    return fit_weights(architecture, state, source.config, path)


def fit_weights(
    architecture: Architecture[Any], stored: State, config_file: Path | None, path: Path
) -> Weights:
    """Tensors that were found in `path`, checked against their config. Raises CheckpointError."""
    state, scales = split_scales(to_diffusers_names(stored), path)
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    if config_file is None:
        config = derive_config(architecture, shapes)
    else:
        config = read_config(architecture, config_file)
        check_counts(config, len(state))
    expected = build_empty(architecture, config).state_dict()
    if problems := problems_of(state, expected):
        if config_file is not None:
            problems = disagreements(architecture, config, shapes) or problems
        raise MismatchedCheckpointError(f"{path} does not fit: {'; '.join(problems)}.")
    if architecture in _OTHER_PRIORS:
        other_width, what = _OTHER_PRIORS[architecture]
        if config.c_cond == other_width:
            raise ForeignCheckpointError(f"{path} {what}")
    return Weights(config, completed(state, expected), scales)
