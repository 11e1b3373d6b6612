"""A text encoder is the same out of every file that people have one in."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from comfyui_wuerstchen.wuerstchen_core.checkpoints import (
    check_part,
    find_parts,
    load_text_encoder,
)
from comfyui_wuerstchen.wuerstchen_core.checkpoints.detect import Kind
from comfyui_wuerstchen.wuerstchen_core.checkpoints.peek import offers
from comfyui_wuerstchen.wuerstchen_core.checkpoints.text import fit_text_tower
from comfyui_wuerstchen.wuerstchen_core.errors import (
    ForeignCheckpointError,
    MismatchedCheckpointError,
    MissingPartError,
)

from .test_broken import assert_readable
from .test_check import write_holes
from .tiny import write_file
from .towers import (
    LAYERS,
    LAYOUTS,
    PROJECTION,
    WIDTH,
    OpenClipText,
    State,
    open_clip_tower,
    reference_states,
    tokenizer,
    transformers_state,
)

CPU = torch.device("cpu")
TEXTS = ["a large red star on a blue background", ""]
# What shapes of the published towers are: (width, layers, inner width) -> parameters.
PUBLISHED = {(1280, 32, 5120): 693_021_440, (1024, 24, 4096): 352_984_064}


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tokenizer."""
    folder = tmp_path_factory.mktemp("words") / "tokenizer"
    tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def stored(words: Path) -> State:
    """open_clip's tensors of the tiny tower."""
    vocabulary = len(json.loads((words / "vocab.json").read_text("utf-8")))
    return open_clip_tower(vocabulary).state_dict()


@pytest.fixture(scope="module")
def expected(words: Path, stored: State) -> torch.Tensor:
    """The states that transformers' tower gives with transformers' tokenizer."""
    tokens = tokenizer(words)(TEXTS, padding="max_length", return_tensors="pt")
    return reference_states(stored, tokens.input_ids, tokens.attention_mask)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_every_layout_gives_the_same_states(
    layout: str, suffix: str, words: Path, stored: State, expected: torch.Tensor, tmp_path: Path
) -> None:
    path = write_file(tmp_path / f"weights{suffix}", LAYOUTS[layout](stored))
    check_part("prior_text_encoder", path, tokenizers=[words])
    encoder = load_text_encoder(path, "float32", CPU, tokenizers=[words])
    assert (encoder.width, encoder.network.config.num_hidden_layers) == (WIDTH, LAYERS)
    assert torch.equal(encoder.encode(TEXTS), expected)


def test_states_are_those_of_open_clip(words: Path, stored: State, tmp_path: Path) -> None:
    """Its own attention and names, on a text whose padding cannot be seen."""
    path = write_file(tmp_path / "clip.safetensors", stored)
    encoder = load_text_encoder(path, "float32", CPU, tokenizers=[words])
    tower = open_clip_tower(len(stored["token_embedding.weight"]))
    ids = tokenizer(words)(TEXTS[0], padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        theirs = tower(ids)
    seen = int((ids[0] == encoder.tokenizer.eos_token_id).nonzero()[0]) + 1
    torch.testing.assert_close(encoder.encode(TEXTS[:1])[:, :seen], theirs[:, :seen])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_stored_in_low_precision(
    dtype: torch.dtype, words: Path, stored: State, tmp_path: Path
) -> None:
    low = {name: value.to(dtype) for name, value in stored.items()}
    path = write_file(tmp_path / "low.safetensors", low)
    encoder = load_text_encoder(path, "float32", CPU, tokenizers=[words])
    exact = {name: value.float() for name, value in low.items()}
    tokens = tokenizer(words)(TEXTS, padding="max_length", return_tensors="pt")
    same = reference_states(exact, tokens.input_ids, tokens.attention_mask)
    assert torch.equal(encoder.encode(TEXTS), same)


def test_a_folder_of_stable_diffusion_xl(
    words: Path, stored: State, expected: torch.Tensor, tmp_path: Path
) -> None:
    """`text_encoder_2` with its config, and a tokenizer that pads with "!"."""
    folder = tmp_path / "text_encoder_2"
    write_file(folder / "model.safetensors", transformers_state(stored))
    config = {
        "architectures": ["CLIPTextModelWithProjection"],
        "model_type": "clip_text_model",
        "vocab_size": len(stored["token_embedding.weight"]),
        "hidden_size": WIDTH,
        "intermediate_size": 128,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 1,
        "hidden_act": "gelu",
    }
    (folder / "config.json").write_text(json.dumps(config))
    other = shutil.copytree(words, tmp_path / "tokenizer_2")
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        stated = json.loads((other / name).read_text())
        (other / name).write_text(json.dumps({**stated, "pad_token": "!"}))
    encoder = load_text_encoder(folder, "float32", CPU)
    assert encoder.tokenizer.pad_token == encoder.tokenizer.eos_token == "<|endoftext|>"
    assert torch.equal(encoder.encode(TEXTS), expected)


def test_a_folder_of_a_whole_clip(
    words: Path, stored: State, expected: torch.Tensor, tmp_path: Path
) -> None:
    """As LAION publishes it for transformers: the text tower's config is one of two."""
    text = {
        "vocab_size": len(stored["token_embedding.weight"]),
        "hidden_size": WIDTH,
        "intermediate_size": 128,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 1,
        "hidden_act": "gelu",
    }
    config = {"model_type": "clip", "text_config": text, "vision_config": {"hidden_size": 8}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    whole = LAYOUTS["whole CLIP of transformers"](stored)
    write_file(tmp_path / "model.safetensors", whole)
    shutil.copytree(words, tmp_path, dirs_exist_ok=True)
    assert torch.equal(load_text_encoder(tmp_path, "float32", CPU).encode(TEXTS), expected)


def test_a_tokenizer_of_another_vocabulary_is_passed_over(
    words: Path, stored: State, tmp_path: Path
) -> None:
    larger = {**stored, "token_embedding.weight": torch.zeros(49_408, WIDTH)}
    path = write_file(tmp_path / "clip.safetensors", larger)
    with pytest.raises(MissingPartError) as caught:
        load_text_encoder(path, "float32", CPU, tokenizers=[words])
    message = str(caught.value)
    assert_readable(message)
    assert "vocab.json and merges.txt" in message and str(tmp_path / "tokenizer") in message
    shutil.copytree(words, tmp_path / "tokenizer")
    with pytest.raises(MismatchedCheckpointError, match="knows 49408 tokens and the tokenizer in"):
        check_part("prior_text_encoder", path)


def test_a_tokenizer_beside_a_file_is_taken_first(
    words: Path, stored: State, expected: torch.Tensor, tmp_path: Path
) -> None:
    path = write_file(tmp_path / "clip.safetensors", stored)
    shutil.copytree(words, tmp_path / "tokenizer")
    encoder = load_text_encoder(path, "float32", CPU, tokenizers=[words])
    assert Path(encoder.tokenizer.name_or_path) == tmp_path / "tokenizer"
    assert torch.equal(encoder.encode(TEXTS), expected)


def tower_shapes(width: int, layers: int, inner: int) -> dict[str, torch.Size]:
    with torch.device("meta"):
        tower = OpenClipText(49_408, width, layers, inner)
    return {name: value.shape for name, value in tower.state_dict().items()}


@pytest.mark.parametrize("sizes", PUBLISHED, ids=["bigG", "H"])
def test_published_towers_are_known_by_their_shapes(
    sizes: tuple[int, int, int], tmp_path: Path
) -> None:
    path = tmp_path / "open_clip_pytorch_model.safetensors"
    write_holes(path, tower_shapes(*sizes))
    fitting = fit_text_tower(path)
    width, layers, inner = sizes
    config = fitting.config
    assert (config.hidden_size, config.num_hidden_layers) == (width, layers)
    assert (config.intermediate_size, config.num_attention_heads) == (inner, width // 64)
    assert (config.vocab_size, config.max_position_embeddings) == (49_408, 77)
    assert (config.hidden_act, config.layer_norm_eps) == ("gelu", 1e-5)
    assert (config.bos_token_id, config.eos_token_id) == (49_406, 49_407)
    assert sum(value.numel() for value in fitting.state.values()) == PUBLISHED[sizes]
    assert Kind.TEXT_ENCODER in offers(path)


def test_the_23_layers_of_stable_diffusion_2_are_refused(tmp_path: Path) -> None:
    shapes = tower_shapes(1024, 23, 4096)
    path = tmp_path / "model.safetensors"
    write_holes(path, shapes)
    with pytest.raises(ForeignCheckpointError, match="has 23 of 24 layers") as caught:
        check_part("decoder_text_encoder", path)
    assert_readable(str(caught.value))
    assert Kind.TEXT_ENCODER not in offers(path)
    config = {"hidden_size": 1024, "num_hidden_layers": 23, "intermediate_size": 4096}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip_text_model", **config}))
    with pytest.raises(ForeignCheckpointError, match="has 23 of 24 layers"):
        check_part("decoder_text_encoder", path)


def test_clip_l_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "clip_l.safetensors"
    write_holes(path, tower_shapes(768, 12, 3072))
    with pytest.raises(ForeignCheckpointError, match="CLIP-L") as caught:
        check_part("prior_text_encoder", path)
    assert_readable(str(caught.value))
    assert offers(path) == frozenset()


def test_a_folder_finds_single_files(words: Path, tmp_path: Path) -> None:
    """The widths tell which stage reads them."""
    for name, sizes in zip(("clip_g", "clip_h"), PUBLISHED, strict=True):
        write_holes(tmp_path / f"{name}.safetensors", tower_shapes(*sizes))
    parts = find_parts(tmp_path)
    assert parts.prior_text_encoder == tmp_path / "clip_g.safetensors"
    assert parts.decoder_text_encoder == tmp_path / "clip_h.safetensors"


@pytest.mark.parametrize("spoiled", ["transformer.resblocks.1.ln_2.bias", "ln_final.weight"])
def test_an_incomplete_tower_is_refused(
    spoiled: str, words: Path, stored: State, tmp_path: Path
) -> None:
    state = {name: value for name, value in stored.items() if name != spoiled}
    path = write_file(tmp_path / "clip.safetensors", state)
    with pytest.raises(MismatchedCheckpointError, match="1 tensors missing"):
        check_part("prior_text_encoder", path, tokenizers=[words])


@pytest.mark.parametrize(
    "name", ["token_embedding.weight", "transformer.resblocks.0.attn.in_proj_weight"]
)
@pytest.mark.parametrize("shape", [(), (7,), (64, 64)])
def test_odd_shapes_are_refused(
    name: str, shape: tuple[int, ...], words: Path, stored: State, tmp_path: Path
) -> None:
    path = write_file(tmp_path / "clip.safetensors", {**stored, name: torch.zeros(shape)})
    with pytest.raises((MismatchedCheckpointError, MissingPartError)) as caught:
        load_text_encoder(path, "float32", CPU)
    assert_readable(str(caught.value))


def test_the_projection_is_not_needed(words: Path, stored: State, tmp_path: Path) -> None:
    state = LAYOUTS["transformers"](stored)
    assert PROJECTION not in state
    save_file({n: v.contiguous() for n, v in state.items()}, tmp_path / "clip.safetensors")
    assert fit_text_tower(tmp_path / "clip.safetensors").tower.projection is None
