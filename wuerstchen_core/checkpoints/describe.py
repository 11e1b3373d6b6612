"""What a file or folder of weights is, in words and numbers. Reads names and shapes, no data."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import CheckpointError
from ..lora.adapters import Lora
from ..lora.match import trained_for
from ..lora.read import read_lora
from .contents import ARCHITECTURES, Held, contents_of
from .detect import Kind
from .load import fit_weights
from .read import format_of
from .rename import ORIGINAL, is_in
from .source import Source
from .text import fit_tower
from .towers import PREFIX, PROJECTION

# What counts and statistics end with; they are no parameters.
_NO_PARAMETERS = ("num_batches_tracked", "running_mean", "running_var", "position_ids")
# Its names are those of v2's; the title and the advice are its own.
_V1_PRIOR = ("Würstchen v1 Stage C (the prior)", "load its folder with Load Würstchen v1 Pipeline")
_V1_PLACES = ("a folder of its own in models", "a folder of its own in models/wuerstchen")
# Kind -> where files of it belong: below the models folder of our host, and of ComfyUI.
_PLACES = {
    Kind.STAGE_C: ("models", "models/diffusion_models"),
    Kind.STAGE_B: ("models", "models/diffusion_models"),
    Kind.STAGE_A: ("models", "models/vae"),
    Kind.IMAGE_ENCODER: ("models", "models/clip_vision"),
    Kind.TEXT_ENCODER: ("models", "models/text_encoders"),
    Kind.STAGE_B_V1: _V1_PLACES,
    Kind.IMAGE_ENCODER_V1: _V1_PLACES,
    Kind.LORA: ("models/loras", "models/loras"),
    Kind.EMBEDDING: ("models/embeddings", "models/embeddings"),
}
_TEXT_FIELDS = (
    "vocab_size",
    "max_position_embeddings",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "hidden_act",
)


@dataclass(frozen=True)
class Description:
    """One network in a file or folder.

    config_from: "config.json", or "the shapes". problem: why no loader would take it.
    """

    path: Path
    part: str | None  # a name of `contents.ARCHITECTURES`, or "text_encoder"
    format: str
    nbytes: int  # of the files, on disk
    kind: Kind
    layout: str
    tensors: int
    parameters: int
    dtypes: dict[str, int]  # dtype -> parameters stored in it
    config: dict[str, Any] = field(default_factory=dict)
    config_from: str = ""
    problem: str = ""

    @property
    def places(self) -> tuple[str, str] | None:
        """The folder for it of our host, and of ComfyUI; None for what belongs in neither."""
        return _V1_PLACES if self.part == "stage_c_v1" else _PLACES.get(self.kind)

    @property
    def title(self) -> str:
        return _V1_PRIOR[0] if self.part == "stage_c_v1" else self.kind.title

    @property
    def advice(self) -> str:
        """What to do with it."""
        return _V1_PRIOR[1] if self.part == "stage_c_v1" else self.kind.advice


def describe(path: Path) -> list[Description]:
    """Each network in a file or a part's folder. Raises UnreadableCheckpointError."""
    source, held = contents_of(path)
    return [_described(path, source, one) for one in held]


def _described(path: Path, source: Source, held: Held) -> Description:
    state = held.tower.state if held.tower else held.state
    parameters = [v for n, v in state.items() if not n.endswith(_NO_PARAMETERS)]
    config, config_from, problem = _config_of(path, source, held)
    return Description(
        path=path,
        part=held.part,
        format=format_of(source.files[0]),
        nbytes=sum(file.stat().st_size for file in source.files),
        kind=held.kind,
        layout=_layout_of(held),
        tensors=len(state),
        parameters=sum(value.numel() for value in parameters),
        dtypes=_dtypes_of(parameters),
        config=config,
        config_from=config_from,
        problem=problem,
    )


def _config_of(path: Path, source: Source, held: Held) -> tuple[dict[str, Any], str, str]:
    """The config, where it is from, and why it does not fit."""
    config_from = "config.json" if source.config else "the shapes"
    try:
        if held.tower:
            fitting = fit_tower(held.tower, source.config, path)
            stated = {name: getattr(fitting.config, name) for name in _TEXT_FIELDS}
        elif held.part:
            weights = fit_weights(ARCHITECTURES[held.part], held.state, source.config, path)
            stated = asdict(weights.config)
        elif held.kind is Kind.LORA:
            return _lora_config(path), "the shapes", ""
        else:
            return {}, "", ""
    except CheckpointError as error:
        return {}, "", str(error)
    return stated, config_from, ""


def _lora_config(path: Path) -> dict[str, Any]:
    lora = read_lora(path)
    kinds = Counter(type(adapter).__name__ for adapter in lora.weights.values())
    downs = [one.down for one in lora.weights.values() if isinstance(one, Lora)]
    return {
        "modules": len(lora.modules),
        "kinds": dict(kinds),
        "rank": sorted({down.shape[0] for down in downs}),
        "trained_for": trained_for(lora.modules, lora.about) or "",
    }


def _layout_of(held: Held) -> str:
    if held.tower:
        place = held.tower.place
        name = place.layout
        if name == "transformers" and not place.root.endswith(PREFIX):
            name = "transformers5"
        around = place.root.removesuffix(PREFIX)
        inside = f", below {around}" if around else ""
        extra = f", with {PROJECTION}" if held.tower.projection is not None else ""
        return name + inside + extra
    if held.part:
        return "original" if is_in(ORIGINAL, held.state) else "diffusers"
    return ""


def _dtypes_of(parameters: Iterable[Tensor]) -> dict[str, int]:
    counted: Counter[str] = Counter()
    for value in parameters:
        counted[str(value.dtype).removeprefix("torch.")] += value.numel()
    return dict(counted.most_common())
