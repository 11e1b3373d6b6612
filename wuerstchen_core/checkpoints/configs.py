"""A network's config: from the config.json beside its weights, else from the weights' shapes."""

import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Generic

import torch

from ..errors import MismatchedCheckpointError, UnreadableCheckpointError
from ..image_encoder import BackboneStage, ImageEncoder, ImageEncoderConfig
from ..layers import Attention
from ..residency import Network
from ..stage_a import StageA, StageAConfig
from ..stage_b import StageB, StageBConfig
from ..stage_c import StageC, StageCConfig
from ..v1.paella import Paella, PaellaConfig
from ..v1.stage_c import StageCV1Config
from .derive import (
    Shapes,
    derive_image_encoder,
    derive_stage_a,
    derive_stage_b,
    derive_stage_b_v1,
    derive_stage_c,
    derive_stage_c_v1,
)
from .detect import Kind


@dataclass(frozen=True)
class Architecture(Generic[Network]):
    """One of the networks that this project defines itself."""

    kind: Kind
    config: type[Any]
    build: Callable[[Any], Network]
    derive: Callable[[Shapes], Any]
    class_name: str  # in published config.json files


STAGE_C = Architecture(Kind.STAGE_C, StageCConfig, StageC, derive_stage_c, "WuerstchenPrior")
STAGE_B = Architecture(Kind.STAGE_B, StageBConfig, StageB, derive_stage_b, "WuerstchenDiffNeXt")
STAGE_A = Architecture(Kind.STAGE_A, StageAConfig, StageA, derive_stage_a, "PaellaVQModel")
IMAGE_ENCODER = Architecture(
    Kind.IMAGE_ENCODER,
    ImageEncoderConfig,
    ImageEncoder,
    derive_image_encoder,
    "EfficientNetEncoder",
)

# Those of v1, which was published without config.json files; the names are the original's classes.
STAGE_C_V1 = Architecture(Kind.STAGE_C, StageCV1Config, StageC, derive_stage_c_v1, "Prior")
STAGE_B_V1 = Architecture(Kind.STAGE_B_V1, PaellaConfig, Paella, derive_stage_b_v1, "Paella")
IMAGE_ENCODER_V1 = Architecture(
    Kind.IMAGE_ENCODER_V1,
    ImageEncoderConfig,
    ImageEncoder,
    derive_image_encoder,
    "EfficientNetEncoder",
)

# What shapes cannot tell.
_GUESSED = {
    "nhead",
    "dropout",
    "patch_size",
    "up_down_scale_factor",
    "scale_factor",
    "effnet",
    "stochastic_depth",
}

# What says how often something is repeated.
_COUNTS = {"depth", "levels", "bottleneck_blocks", "blocks", "stages"}

ARCHITECTURES: tuple[Architecture[Any], ...] = (STAGE_C, STAGE_B, STAGE_A, IMAGE_ENCODER)


# Names that fields had in the first revisions of the published repositories.
_OLD_NAMES = {
    Kind.STAGE_A: {
        "c_hidden": "embed_dim",
        "c_latent": "latent_channels",
        "codebook_size": "num_vq_embeddings",
    }
}


def read_config(architecture: Architecture[Any], path: Path) -> Any:
    """config.json -> the config; fields that no longer mean anything are ignored.

    Raises UnreadableCheckpointError for a broken file, MismatchedCheckpointError for a value of
    the wrong type.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnreadableCheckpointError(f"{path} is not readable JSON: {error}.") from error
    if not isinstance(data, Mapping):
        raise UnreadableCheckpointError(f"{path} holds no JSON object with a config's fields.")
    old = _OLD_NAMES.get(architecture.kind, {})
    data = {old.get(name, name): value for name, value in data.items()}
    known = {field.name: field.default for field in fields(architecture.config)}
    values = {name: _from_json(name, data[name]) for name in known if name in data}
    for name, value in values.items():
        default = known[name]
        if default is not MISSING and not _fits(value, default):
            raise MismatchedCheckpointError(
                f"{path} sets {name} to {value!r}; a value like {default!r} is expected."
            )
    return architecture.config(**values)


def _from_json(name: str, value: Any) -> Any:
    if name == "stages" and isinstance(value, list):
        try:
            return tuple(BackboneStage(*row) for row in value)
        except TypeError as error:
            raise MismatchedCheckpointError(
                f"stages is {value!r} in config.json; rows of "
                f"[{', '.join(BackboneStage._fields)}] are expected."
            ) from error
    return tuple(value) if isinstance(value, list) else value


def _fits(value: Any, default: Any) -> bool:
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    if isinstance(default, float):  # dropout may be a list, one value a level
        return isinstance(value, (int, float, tuple))
    return isinstance(value, type(default))


def build_empty(architecture: Architecture[Network], config: Any) -> Network:
    """The network of a config, without memory. Raises MismatchedCheckpointError."""
    try:
        with torch.device("meta"):
            network = architecture.build(config)
        for module in network.modules():
            if isinstance(module, Attention):
                _check_heads(module)
    except (ValueError, IndexError, TypeError, RuntimeError, ZeroDivisionError) as error:
        raise MismatchedCheckpointError(
            f"{config} describes no possible network: {error}; check config.json."
        ) from error
    return network


def _check_heads(attention: Attention) -> None:
    width = attention.to_q.out_features
    if attention.heads < 1 or width % attention.heads:
        raise ValueError(f"{width} channels cannot be split among {attention.heads} heads")


def check_counts(config: Any, tensors: int) -> None:
    """Raises MismatchedCheckpointError for more layers than there are tensors: a broken config must
    not make a network that takes for ever to build."""
    for name in _COUNTS & vars(config).keys():
        stated = getattr(config, name)
        numbers = stated if isinstance(stated, tuple) else (stated,)
        layers = [one.layers if isinstance(one, BackboneStage) else one for one in numbers]
        if any(isinstance(each, int) and each > tensors for each in layers):
            raise MismatchedCheckpointError(
                f"config.json sets {name} to {_plain(stated)}, and the weights are only {tensors} "
                "tensors."
            )


def derive_config(architecture: Architecture[Any], shapes: Shapes) -> Any:
    """The weights' shapes -> the config. Raises MismatchedCheckpointError."""
    try:
        return architecture.derive(shapes)
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        if isinstance(error, MismatchedCheckpointError):
            raise
        raise MismatchedCheckpointError(
            f"this looks like {architecture.kind.title}, but its weights are incomplete "
            f"({error.args[0] if error.args else error} is missing or has an odd shape)."
        ) from error


def disagreements(architecture: Architecture[Any], config: Any, shapes: Shapes) -> list[str]:
    """Each field that config.json and the weights' shapes give different values."""
    try:
        derived = derive_config(architecture, shapes)
    except MismatchedCheckpointError:
        return []
    values = {
        field.name: (getattr(config, field.name), getattr(derived, field.name))
        for field in fields(config)
        if field.name not in _GUESSED
    }
    return [
        f"{name} is {_plain(given)} in config.json and {_plain(held)} in the weights"
        for name, (given, held) in values.items()
        if given != held
    ]


def _plain(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_plain(item) for item in value) + "]"
    return str(value)
