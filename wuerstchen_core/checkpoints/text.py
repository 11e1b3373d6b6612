"""A CLIP text encoder's weights -> the tower and its tokenizer. Never touches the network."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import (
    ForeignCheckpointError,
    MismatchedCheckpointError,
    MissingPartError,
    UnreadableCheckpointError,
)
from ..optimize import PLAIN, Optimization, placed
from ..residency import pick_device, pick_dtype
from ..text_encoder import TextEncoder
from .derive import derive_text_tower
from .detect import Kind
from .fit import completed, foreign, problems_of
from .read import State
from .scaled import Multiplied, split_scales
from .source import find_source, read_source
from .towers import PREFIX, Tower, tower_in

if TYPE_CHECKING:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

# Two threads that begin to import transformers together (one reads ahead) may find half of it.
_IMPORTING = threading.Lock()

# Width -> layers of the towers that Würstchen reads: CLIP-bigG (Stage C) and CLIP-H (Stage B).
_PUBLISHED_LAYERS = {1280: 32, 1024: 24}
_CLIP_L_WIDTH = 768
_VOCABULARY_FILES = ("tokenizer.json", "vocab.json")


def load_text_encoder(
    path: Path,
    dtype: str = "auto",
    device: torch.device | None = None,
    optimization: Optimization = PLAIN,
    tokenizers: Sequence[Path] = (),
) -> TextEncoder:
    """A `text_encoder` folder or a file of weights -> the encoder.

    path: of any layout that `towers.py` knows; a larger checkpoint may hold it. A config.json
    beside the weights is read, else the shapes tell it.
    tokenizers: folders to take a tokenizer from where none lies with the weights, best first.
    Raises CheckpointError, and SettingError for a dtype that the device cannot use.
    """
    pick_dtype(dtype, device or pick_device())
    return text_encoder_of(open_text_encoder(path, tokenizers), dtype, device, optimization)


def text_encoder_of(
    weights: "TowerWeights",
    dtype: str = "auto",
    device: torch.device | None = None,
    optimization: Optimization = PLAIN,
) -> TextEncoder:
    """A tower's weights that are open -> the encoder, as `load_text_encoder` gives it."""
    device = device or pick_device()
    target = pick_dtype(dtype, device)
    network = _filled_tower(weights.config, weights.state)
    return TextEncoder(weights.tokenizer, placed(network, device, target, optimization))


def check_text_encoder(path: Path, tokenizers: Sequence[Path] = ()) -> None:
    """Raises CheckpointError where `load_text_encoder` would, without filling a tower."""
    tower = fit_text_tower(path)
    tokenizer_for(path, tower.config.vocab_size, tokenizers)


@dataclass(frozen=True)
class TowerWeights:
    """A text tower's weights, by names without `PREFIX`, and its tokenizer."""

    config: "CLIPTextConfig"
    state: Mapping[str, Tensor]
    tokenizer: "CLIPTokenizer"


def open_text_encoder(path: Path, tokenizers: Sequence[Path] = ()) -> TowerWeights:
    """Like `load_text_encoder`, without building the tower."""
    fitting = fit_text_tower(path)
    tokenizer = tokenizer_for(path, fitting.config.vocab_size, tokenizers)
    return TowerWeights(fitting.config, Multiplied(fitting.state, fitting.scales), tokenizer)


@dataclass(frozen=True)
class FittingTower:
    """A tower's weights as they are stored, exactly those that its config tells."""

    tower: Tower  # as the file has it
    config: "CLIPTextConfig"
    state: State
    scales: State  # of `scaled.split_scales`


def fit_text_tower(path: Path) -> FittingTower:
    """A folder or file with a text tower, checked against its config. Raises CheckpointError."""
    source = find_source(path)
    states = read_source(source)
    tower = next(filter(None, map(tower_in, states)), None)
    if tower is None:
        raise foreign(states[0], Kind.TEXT_ENCODER, path)
    return fit_tower(tower, source.config, path)


def fit_tower(tower: Tower, config_file: Path | None, path: Path) -> FittingTower:
    """A tower that was found in `path`, checked against its config. Raises CheckpointError."""
    state, scales = split_scales(tower.state, path)
    config = _read_config(config_file) if config_file else derive_config(state, path)
    _check_depth(config, len(state), path)
    expected = {name.removeprefix(PREFIX): value for name, value in _empty(config).items()}
    if problems := problems_of(state, expected):
        raise MismatchedCheckpointError(f"{path} does not fit: {'; '.join(problems)}.")
    return FittingTower(tower, config, completed(state, expected), scales)


def _classes() -> "tuple[type[CLIPTextConfig], type[CLIPTextModel], type[CLIPTokenizer]]":
    """transformers' own, imported on use: it takes seconds."""
    with _IMPORTING:
        from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    return CLIPTextConfig, CLIPTextModel, CLIPTokenizer


def _empty(config: "CLIPTextConfig") -> dict[str, torch.Tensor]:
    _, model_class, _ = _classes()
    try:
        with torch.device("meta"):
            return model_class(config).state_dict()
    except (ValueError, TypeError, LookupError, RuntimeError, ZeroDivisionError) as error:
        raise MismatchedCheckpointError(
            f"the text encoder's config.json describes no possible network: {error}."
        ) from error


def _filled_tower(config: "CLIPTextConfig", state: Mapping[str, Tensor]) -> "CLIPTextModel":
    _, model_class, _ = _classes()
    with torch.device("meta"):
        network = model_class(config)
    prefixed = any(name.startswith(PREFIX) for name in network.state_dict())  # transformers 4
    prefix = PREFIX if prefixed else ""
    network.load_state_dict({prefix + name: value for name, value in state.items()}, assign=True)
    for name, buffer in list(network.named_buffers()):
        if buffer.is_meta:  # position_ids, which no file needs to hold: 0, 1, 2, …
            owner, _, leaf = name.rpartition(".")
            positions = torch.arange(buffer.shape[-1]).expand(buffer.shape)
            network.get_submodule(owner).register_buffer(leaf, positions, persistent=False)
    return network


def _read_config(path: Path) -> "CLIPTextConfig":
    config_class, _, _ = _classes()
    try:
        return config_class.from_pretrained(path.parent, local_files_only=True)
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise UnreadableCheckpointError(
            f"{path} is no CLIP text config; copy the published one there."
        ) from error


def derive_config(state: State, path: Path) -> "CLIPTextConfig":
    """What shapes do not tell is that of LAION's towers, which are the ones that Würstchen reads.

    CLIP-L differs in its activation, so it is told apart by its width."""
    config_class, _, _ = _classes()
    try:
        sizes = derive_text_tower({name: tuple(value.shape) for name, value in state.items()})
    except (KeyError, IndexError, ValueError) as error:
        if isinstance(error, MismatchedCheckpointError):
            raise
        raise MismatchedCheckpointError(
            f"{path} looks like {Kind.TEXT_ENCODER.title}, but its weights are incomplete "
            f"({error.args[0] if error.args else error} is missing or has an odd shape)."
        ) from error
    if sizes.width == _CLIP_L_WIDTH:
        raise ForeignCheckpointError(
            f"{path} is CLIP-L ({_CLIP_L_WIDTH} wide), which no stage of Würstchen reads; use "
            "CLIP-bigG (1280 wide) for Stage C and CLIP-H (1024 wide) for Stage B."
        )
    return config_class(
        vocab_size=sizes.vocabulary,
        max_position_embeddings=sizes.positions,
        hidden_size=sizes.width,
        projection_dim=sizes.width,
        intermediate_size=sizes.inner_width,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        hidden_act="gelu",
        layer_norm_eps=1e-5,
        # CLIP's vocabularies end with <|startoftext|> and <|endoftext|>, which is also the padding.
        bos_token_id=sizes.vocabulary - 2,
        eos_token_id=sizes.vocabulary - 1,
        pad_token_id=sizes.vocabulary - 1,
    )


def _check_depth(config: "CLIPTextConfig", tensors: int, path: Path) -> None:
    if config.num_hidden_layers > tensors:
        raise MismatchedCheckpointError(
            f"{path} has {tensors} tensors, which cannot be the {config.num_hidden_layers} layers "
            "that its config.json states."
        )
    layers = _PUBLISHED_LAYERS.get(config.hidden_size, 0)
    if config.num_hidden_layers == layers - 1:
        raise ForeignCheckpointError(
            f"{path} has {layers - 1} of {layers} layers, as Stable Diffusion 2's diffusers folder "
            "has it, and Würstchen reads the last layer's states; use Stable Diffusion 2's single "
            "file or the text_encoder folder of warp-ai/wuerstchen."
        )


def tokenizer_for(path: Path, vocabulary: int, others: Sequence[Path]) -> "CLIPTokenizer":
    """The tokenizer that lies with the weights, else the first of the others with their vocabulary.

    It pads with its end token, as both published ones do and SDXL's second one does not.
    """
    folder = path if path.is_dir() else path.parent
    own = list(_places(folder))
    misfits = []
    for place in (*own, *others):
        if any((place / name).is_file() for name in _VOCABULARY_FILES):
            tokenizer = _read_tokenizer(place)
            if len(tokenizer) == vocabulary:
                tokenizer.pad_token = tokenizer.eos_token
                return tokenizer
            if place in own:
                misfits.append(f"the tokenizer in {place} has {len(tokenizer)}")
    wanted = folder.parent / "tokenizer" if path.is_dir() else folder / "tokenizer"
    if misfits:
        raise MismatchedCheckpointError(
            f"{path} knows {vocabulary} tokens and {misfits[0]}; put vocab.json and merges.txt of "
            f"the tokenizer that belongs to it into {wanted}."
        )
    raise MissingPartError(
        f"{path} has no tokenizer; put vocab.json and merges.txt of warp-ai/wuerstchen's tokenizer "
        f"folder into {wanted}."
    )


def _places(folder: Path) -> Iterator[Path]:
    yield folder
    yield folder / "tokenizer"
    yield folder.parent / "tokenizer"
    yield folder.parent / "tokenizer_2"  # of Stable Diffusion XL: the same words


def _read_tokenizer(place: Path) -> Any:
    _, _, tokenizer_class = _classes()
    try:
        return tokenizer_class.from_pretrained(place, local_files_only=True)
    except Exception as error:  # the tokenizers library raises bare Exception
        raise UnreadableCheckpointError(
            f"the tokenizer in {place} cannot be read; copy it there again."
        ) from error
