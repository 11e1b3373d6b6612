"""A network's config: from the config.json beside its weights, else from the weights' shapes."""

import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from torch import nn

from ..errors import MismatchedCheckpointError, UnreadableCheckpointError
from ..image_encoder import BackboneStage, ImageEncoder, ImageEncoderConfig
from ..stage_a import StageA, StageAConfig
from ..stage_b import StageB, StageBConfig
from ..stage_c import StageC, StageCConfig
from .derive import (
    Shapes,
    derive_image_encoder,
    derive_stage_a,
    derive_stage_b,
    derive_stage_c,
)
from .detect import Kind

Network = TypeVar("Network", bound=nn.Module)


class Architecture(NamedTuple, Generic[Network]):
    """One of the four networks that this project defines itself."""

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

ARCHITECTURES: tuple[Architecture[Any], ...] = (STAGE_C, STAGE_B, STAGE_A, IMAGE_ENCODER)


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
        return tuple(BackboneStage(*row) for row in value)
    return tuple(value) if isinstance(value, list) else value


def _fits(value: Any, default: Any) -> bool:
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    if isinstance(default, float):  # dropout may be a list, one value a level
        return isinstance(value, (int, float, tuple))
    return isinstance(value, type(default))


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
    # What shapes cannot tell is no disagreement.
    guesses = {"nhead", "dropout", "scale_factor", "effnet", "stochastic_depth"}
    return [
        f"{field.name} is {_plain(getattr(config, field.name))} in config.json "
        f"and {_plain(getattr(derived, field.name))} in the weights"
        for field in fields(config)
        if field.name not in guesses and getattr(config, field.name) != getattr(derived, field.name)
    ]


def _plain(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_plain(item) for item in value) + "]"
    return str(value)
