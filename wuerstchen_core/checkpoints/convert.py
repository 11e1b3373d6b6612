"""Weights in one layout -> the same weights in another, bit for bit unless a dtype is asked for."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import (
    CheckpointError,
    ForeignCheckpointError,
    MismatchedCheckpointError,
    SettingError,
)
from .configs import derive_config
from .contents import ARCHITECTURES, TEXT_ENCODER, Held, contents_of, weights_in
from .load import fit_weights
from .read import State
from .rename import OPEN_CLIP, ORIGINAL, from_ours
from .save import (
    PART_WEIGHTS,
    TOWER_WEIGHTS,
    cast,
    write_part,
    write_tokenizer,
    write_tower,
    write_weights,
)
from .scaled import Multiplied
from .source import Source
from .text import derive_config as derive_text_config
from .text import fit_tower, tokenizer_for
from .towers import PREFIX, PROJECTION

# The first is what published folders have; the others are single files.
STAGE_LAYOUTS = ("diffusers", "original")
TEXT_LAYOUTS = ("transformers", "transformers5", "open_clip", "comfyui")
_SINGLE_FILES = ("original", "open_clip", "comfyui")
_WITH_PROJECTION = ("open_clip", "comfyui")
PARTS = (*ARCHITECTURES, TEXT_ENCODER)

_PICKLES = (".pt", ".pth", ".bin", ".ckpt")
_TRAINING_ONLY = ("dropout", "stochastic_depth", "effnet")  # fields that change no result
_TEXT_FIELDS = ("num_attention_heads", "hidden_act", "layer_norm_eps")


@dataclass(frozen=True)
class Converted:
    """What was written. `left_out`: tensors that the layout has no place for."""

    part: str
    layout: str
    state: State
    files: tuple[Path, ...]
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Plan:
    """One network by our names, and how to write it."""

    part: str
    state: Mapping[str, Tensor]
    arrange: Callable[[State], State]  # into the wanted layout
    weights_name: str  # in a folder
    write_folder: Callable[[State], None]
    left_out: tuple[str, ...] = ()


def convert(
    source: Path,
    target: Path,
    layout: str | None = None,
    part: str | None = None,
    dtype: torch.dtype | None = None,
    overwrite: bool = False,
) -> Converted:
    """Writes one network of `source` to `target`.

    target: a .safetensors file, or a folder that gets config.json and weights, and the tokenizer
    that lies with a text encoder.
    layout: of STAGE_LAYOUTS or TEXT_LAYOUTS; None is the first, that of published folders.
    part: of PARTS, where the source holds several.
    dtype: None keeps each tensor's own; scaled float8 becomes float32.
    Raises CheckpointError for weights that no loader would take, SettingError for what cannot be
    written so.
    """
    if target.suffix in _PICKLES:
        raise SettingError(
            f"{target} would be a pickle, which can hold code; name a .safetensors file or a "
            "folder."
        )
    to_file = target.suffix == ".safetensors"
    source = _only_one(source)
    found, held = contents_of(source)
    chosen = _chosen(held, part, source)
    layout = _layout_for(chosen, layout, target)
    make = _stage_plan if chosen.tower is None else _tower_plan
    plan = make(chosen, found, source, target, layout)
    files = (target,) if to_file else (target / "config.json", target / plan.weights_name)
    taken = [file for file in files if file.exists()]
    if taken and not overwrite:
        raise SettingError(f"{taken[0]} exists; --force overwrites it.")
    state = plan.arrange(dict(plan.state) if dtype is None else cast(plan.state, dtype))
    state = {name: _writable(value) for name, value in state.items()}
    write_weights(target, state) if to_file else plan.write_folder(state)
    return Converted(plan.part, layout, state, files, plan.left_out)


def _writable(value: Tensor) -> Tensor:
    """Contiguous and in memory of its own, as safetensors wants it; a copy only where it is not."""
    if value.is_contiguous() and value.untyped_storage().nbytes() == value.nbytes:
        return value
    return value.clone(memory_format=torch.contiguous_format)


def _only_one(source: Path) -> Path:
    weights = weights_in(source)
    if len(weights) > 1:
        names = ", ".join(str(path.relative_to(source)) for path in weights)
        raise SettingError(f"{source} holds several networks; name one of {names} in it.")
    return weights[0]


def _chosen(held: list[Held], part: str | None, path: Path) -> Held:
    own = [one for one in held if one.part is not None]
    if not own:
        raise ForeignCheckpointError(f"{path} is {held[0].kind.title}: {held[0].kind.advice}.")
    fitting = [one for one in own if part in (None, one.part)]
    names = " and ".join(str(one.part) for one in own)
    if not fitting:
        raise SettingError(f"{path} holds no {part}; it holds {names}.")
    if len(fitting) > 1:
        raise SettingError(f"{path} holds {names}; say which with --part.")
    return fitting[0]


def _layout_for(held: Held, layout: str | None, target: Path) -> str:
    known = STAGE_LAYOUTS if held.tower is None else TEXT_LAYOUTS
    layout = layout or known[0]
    if layout not in known:
        raise SettingError(
            f"{held.kind.title} has no layout {layout}; choose one of {', '.join(known)}."
        )
    if layout in _SINGLE_FILES and target.suffix != ".safetensors":
        raise SettingError(
            f"layout {layout} is a single file; name a .safetensors file instead of {target}."
        )
    return layout


def _stage_plan(held: Held, found: Source, source: Path, target: Path, layout: str) -> _Plan:
    part = str(held.part)
    architecture = ARCHITECTURES[part]
    weights = fit_weights(architecture, held.state, found.config, source)
    state = Multiplied(weights.state, weights.scales)
    if target.suffix == ".safetensors":
        lone = derive_config(architecture, {name: tuple(v.shape) for name, v in state.items()})
        names = [field.name for field in fields(lone) if field.name not in _TRAINING_ONLY]
        _check_same(lone, weights.config, names, source)
    return _Plan(
        part,
        state,
        lambda ours: from_ours(ours, ORIGINAL) if layout == "original" else ours,
        PART_WEIGHTS,
        lambda ready: write_part(architecture, weights.config, ready, target),
    )


def _tower_plan(held: Held, found: Source, source: Path, target: Path, layout: str) -> _Plan:
    assert held.tower is not None
    fitting = fit_tower(held.tower, found.config, source)
    config, projection = fitting.config, held.tower.projection
    if target.suffix == ".safetensors":
        _check_same(derive_text_config(fitting.state, source), config, _TEXT_FIELDS, source)
    state: Mapping[str, Tensor] = Multiplied(fitting.state, fitting.scales)
    if projection is not None and layout in _WITH_PROJECTION:
        state = {**state, PROJECTION: projection}

    def arrange(ours: State) -> State:
        if layout == "open_clip":
            return from_ours(ours, OPEN_CLIP)
        if layout == "transformers5":
            return ours
        return {n if n == PROJECTION else PREFIX + n: value for n, value in ours.items()}

    def write_folder(ready: State) -> None:
        write_tower(config, ready, target)
        # Where none lies with the source, the new folder is as complete as the old one.
        with suppress(CheckpointError):
            tokenizer = tokenizer_for(source, config.vocab_size, ())
            write_tokenizer(tokenizer, target / "tokenizer")

    lost = projection is not None and layout not in _WITH_PROJECTION
    left_out = (PROJECTION,) if lost else ()
    return _Plan(TEXT_ENCODER, state, arrange, TOWER_WEIGHTS, write_folder, left_out)


def _check_same(lone: Any, config: Any, names: Sequence[str], path: Path) -> None:
    """A file has no config.json, so nothing may be in it that shapes do not tell."""
    lost = [name for name in names if getattr(lone, name) != getattr(config, name)]
    if lost:
        raise MismatchedCheckpointError(
            f"{path} needs its config.json, because a file of weights alone does not tell "
            f"{', '.join(lost)}; name a folder to write to."
        )
