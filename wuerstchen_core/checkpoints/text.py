"""A CLIP text encoder's folder -> the tower and its tokenizer. Never touches the network."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..errors import MismatchedCheckpointError, MissingPartError, UnreadableCheckpointError
from ..optimize import PLAIN, Optimization, placed
from ..residency import pick_device, pick_dtype
from ..text_encoder import TextEncoder
from .detect import Kind
from .fit import completed, filled, problems_of, state_of_kind
from .read import State
from .source import find_source, read_source

if TYPE_CHECKING:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

# transformers 5 dropped this prefix from CLIPTextModel's names; published files have it.
PREFIX = "text_model."


def load_text_encoder(
    path: Path,
    dtype: str = "auto",
    device: torch.device | None = None,
    optimization: Optimization = PLAIN,
) -> TextEncoder:
    """A `text_encoder` folder, with the tokenizer in it or in `tokenizer` beside it.

    path: the folder, or the file of weights in it. Raises CheckpointError, and SettingError for a
    dtype that the device cannot use.
    """
    device = device or pick_device()
    target = pick_dtype(dtype, device)
    weights = open_text_encoder(path)
    network = _filled_tower(weights.config, _fitting(weights, path))
    return TextEncoder(weights.tokenizer, placed(network, device, target, optimization))


def check_text_encoder(path: Path) -> None:
    """Raises CheckpointError where `load_text_encoder` would, without filling a tower."""
    _fitting(open_text_encoder(path), path)


@dataclass(frozen=True)
class TowerWeights:
    """A text tower's weights, by names without `PREFIX`, and its tokenizer."""

    config: "CLIPTextConfig"
    state: State
    tokenizer: "CLIPTokenizer"


def open_text_encoder(path: Path) -> TowerWeights:
    """Like `load_text_encoder`, without building the tower."""
    source = find_source(path)
    state = _without_prefix(state_of_kind(read_source(source), Kind.TEXT_ENCODER, path))
    folder = path if path.is_dir() else path.parent
    if source.config is None:
        raise MissingPartError(
            f"{folder} holds a text encoder without its config.json; copy that file there too."
        )
    return TowerWeights(_read_config(folder), state, _read_tokenizer(folder))


def _fitting(weights: TowerWeights, path: Path) -> State:
    """The weights by the names that this transformers gives them, exactly those of the tower."""
    from transformers import CLIPTextModel

    with torch.device("meta"):
        expected = CLIPTextModel(weights.config).state_dict()
    state = weights.state
    if any(name.startswith(PREFIX) for name in expected):  # transformers 4
        state = {PREFIX + name: value for name, value in state.items()}
    if problems := problems_of(state, expected):
        raise MismatchedCheckpointError(f"{path} does not fit: {'; '.join(problems)}.")
    return completed(state, expected)


def _filled_tower(config: "CLIPTextConfig", state: State) -> "CLIPTextModel":
    from transformers import CLIPTextModel

    network = filled(lambda: CLIPTextModel(config), state)
    for name, buffer in list(network.named_buffers()):
        if buffer.is_meta:  # position_ids, which no file needs to hold: 0, 1, 2, …
            owner, _, leaf = name.rpartition(".")
            positions = torch.arange(buffer.shape[-1]).expand(buffer.shape)
            network.get_submodule(owner).register_buffer(leaf, positions, persistent=False)
    return network


def _without_prefix(state: State) -> State:
    """The text tower's own tensors; a whole CLIP also holds projections and a vision tower."""
    if any(name.startswith(PREFIX) for name in state):
        return {
            name.removeprefix(PREFIX): value
            for name, value in state.items()
            if name.startswith(PREFIX)
        }
    return state


def _read_config(folder: Path) -> "CLIPTextConfig":
    from transformers import CLIPTextConfig

    try:
        return CLIPTextConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise UnreadableCheckpointError(
            f"{folder / 'config.json'} is no CLIP text config; copy the published one there."
        ) from error


def _read_tokenizer(folder: Path) -> "CLIPTokenizer":
    from transformers import CLIPTokenizer

    for place_of_tokenizer in (folder, folder / "tokenizer", folder.parent / "tokenizer"):
        if any((place_of_tokenizer / name).is_file() for name in ("tokenizer.json", "vocab.json")):
            try:
                return CLIPTokenizer.from_pretrained(place_of_tokenizer, local_files_only=True)
            except Exception as error:  # the tokenizers library raises bare Exception
                raise UnreadableCheckpointError(
                    f"the tokenizer in {place_of_tokenizer} cannot be read; copy it there again."
                ) from error
    raise MissingPartError(
        f"{folder} has no tokenizer; put the published `tokenizer` folder beside it, as "
        f"{folder.parent / 'tokenizer'}."
    )
