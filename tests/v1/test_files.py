"""v1's published files, in small: found, loaded, told apart from v2's, and refused by name."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from comfyui_wuerstchen.wuerstchen_core.checkpoints import (
    find_parts,
    find_parts_v1,
    load_image_encoder,
    load_image_encoder_v1,
    load_stage_a,
    load_stage_b,
    load_stage_b_v1,
    load_stage_c,
    load_stage_c_v1,
    load_text_encoder,
)
from comfyui_wuerstchen.wuerstchen_core.errors import (
    CheckpointError,
    ForeignCheckpointError,
    MismatchedCheckpointError,
    MissingPartError,
    UnreadableCheckpointError,
)
from comfyui_wuerstchen.wuerstchen_core.noise import SampleNoise
from comfyui_wuerstchen.wuerstchen_core.optimize import Optimization
from comfyui_wuerstchen.wuerstchen_core.stage_c import StageC, StageCConfig
from comfyui_wuerstchen.wuerstchen_core.v1.generate import (
    codebook_of,
    decode_tokens,
    encode_tokens,
    sample_tokens,
)
from comfyui_wuerstchen.wuerstchen_core.v1.sampling import TokenSettings

from ..checkpoints.tiny import with_weights, write_file, write_published
from .tiny import WIDTH, networks

CPU = torch.device("cpu")
LOADERS = {
    "stage_c": load_stage_c_v1,
    "stage_b": load_stage_b_v1,
    "stage_a": load_stage_a,
    "image_encoder": load_image_encoder_v1,
}


@pytest.mark.parametrize("part", LOADERS)
def test_published_files_hold_the_parts(part: str, published_v1: Path) -> None:
    path = find_parts_v1(published_v1).require(part)
    loaded, expected = LOADERS[part](path, "float32", CPU), networks()[part]
    assert loaded.config == expected.config and type(loaded.config) is type(expected.config)
    state = expected.state_dict()
    assert loaded.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())


def test_the_text_encoder_is_as_wide_as_stage_b_reads(published_v1: Path) -> None:
    path = find_parts_v1(published_v1).require("text_encoder")
    assert load_text_encoder(path, "float32", CPU).encode(["a"]).shape == (1, 77, WIDTH)


def test_both_versions_in_one_folder(published_v1: Path, tmp_path: Path) -> None:
    both = tmp_path / "both"
    shutil.copytree(published_v1, both)
    width = with_weights(StageC(StageCConfig(c=64, c_cond=1024, depth=1, nhead=1)))
    write_file(both / "model_stage_c.pt", width.state_dict())
    write_published(both, tmp_path / "tokenizer")
    v1, v2 = find_parts_v1(both), find_parts(both)
    assert v1.stage_b != v2.stage_b and v1.image_encoder != v2.image_encoder
    assert v2.stage_c is not None and v2.stage_c.name == "prior"
    bigg = with_weights(StageC(StageCConfig(c=64, c_cond=1280, depth=1, nhead=1)))
    write_file(both / "a_model_v2_stage_c.pt", bigg.state_dict())
    shutil.rmtree(both / "wuerstchen-prior")
    assert find_parts(both).require("stage_c").name == "a_model_v2_stage_c.pt"
    assert find_parts_v1(both).require("stage_c").name == "model_stage_c.pt"


@pytest.mark.parametrize("load", [load_stage_b, load_image_encoder])
def test_loaders_of_v2_say_where_v1_belongs(load, published_v1: Path) -> None:
    with pytest.raises(ForeignCheckpointError, match="v1 .* Load Würstchen v1 Pipeline"):
        load(published_v1 / "model_stage_b.pt", "float32", CPU)


@pytest.mark.parametrize(
    ("load", "width", "loader"),
    [
        (load_stage_c, 1024, "Load Würstchen v1 Pipeline"),
        (load_stage_c_v1, 1280, "Load Würstchen Stage C"),
    ],
)
def test_priors_are_told_apart_by_the_texts_they_read(
    load, width: int, loader: str, tmp_path: Path
) -> None:
    network = with_weights(StageC(StageCConfig(c=64, c_cond=width, depth=1, nhead=1)))
    path = write_file(tmp_path / "c.safetensors", network.state_dict())
    with pytest.raises(ForeignCheckpointError, match=f"{width} wide.*{loader}"):
        load(path, "float32", CPU)


def test_a_prior_of_clip_h_loads(tmp_path: Path) -> None:
    network = with_weights(StageC(StageCConfig(c=64, c_cond=1024, depth=1, nhead=1)))
    path = write_file(tmp_path / "c.safetensors", network.state_dict())
    assert load_stage_c_v1(path, "float32", CPU).config.latent_mean == 1


@pytest.mark.parametrize(
    ("part", "file"),
    [
        ("stage_c", "model_stage_c.pt"),
        ("stage_b", "model_stage_b.pt"),
        ("stage_a", "vqgan_f4_v1_500k.pt"),
        ("text_encoder", "CLIP-H"),
        ("image_encoder", "model_stage_b.pt"),
    ],
)
def test_a_missing_part_is_named(part: str, file: str, tmp_path: Path) -> None:
    with pytest.raises(MissingPartError, match=file) as raised:
        find_parts_v1(tmp_path).require(part)
    assert "\n" not in str(raised.value)
    with pytest.raises(UnreadableCheckpointError, match="does not exist"):
        find_parts_v1(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("dtype", "optimization"),
    [
        ("bfloat16", Optimization()),
        ("float32", Optimization(residency="streamed")),
        ("float32", Optimization(residency="one_stage")),
    ],
    ids=["bfloat16", "streamed", "one_stage"],
)
def test_parts_run_as_they_are_kept(
    dtype: str, optimization: Optimization, published_v1: Path
) -> None:
    parts = find_parts_v1(published_v1)
    generator = torch.Generator().manual_seed(0)
    embedding = torch.randn(1, 16, 3, 3, generator=generator)
    text = torch.randn(2, 77, WIDTH, generator=generator)

    def pictures(*kept: Any) -> tuple[torch.Tensor, torch.Tensor]:
        stage_b = load_stage_b_v1(parts.require("stage_b"), *kept)
        stage_a = load_stage_a(parts.require("stage_a"), *kept)
        settings = TokenSettings(steps=2, mode="quant")
        tokens = sample_tokens(
            stage_b, embedding, text[:1], text[1:], None, SampleNoise([1]), settings,
            codebook_of(stage_a),
        )  # fmt: skip
        assert encode_tokens(stage_a, decode_tokens(stage_a, tokens)).shape == tokens.shape
        return tokens, decode_tokens(stage_a, tokens)

    tokens, pixels = pictures("float32", CPU)
    found, shown = pictures(dtype, CPU, optimization)
    if dtype == "float32":
        assert torch.equal(found, tokens) and torch.equal(shown, pixels)
    else:
        assert (found == tokens).float().mean() > 0.5 and shown.isfinite().all()


def _without(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in state.items() if name != "clf.1.bias"}


def _reshaped(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {**state, "clf.1.bias": torch.zeros(3)}


@pytest.mark.parametrize(
    ("change", "words"),
    [(_without, "1 tensors missing .clf.1.bias"), (_reshaped, "clf.1.bias is 3, expected")],
)
def test_broken_weights_are_refused_in_one_sentence(change, words: str, tmp_path: Path) -> None:
    state = change(networks()["stage_b"].state_dict())
    path = write_file(tmp_path / "model_stage_b.pt", {"state_dict": state})
    with pytest.raises(MismatchedCheckpointError, match=words) as raised:
        load_stage_b_v1(path, "float32", CPU)
    assert "\n" not in str(raised.value)


def test_a_truncated_file_is_refused_in_one_sentence(published_v1: Path, tmp_path: Path) -> None:
    whole = (published_v1 / "model_stage_b.pt").read_bytes()
    (tmp_path / "model_stage_b.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="truncated|damaged") as raised:
        load_stage_b_v1(tmp_path / "model_stage_b.pt", "float32", CPU)
    assert "\n" not in str(raised.value)
    assert find_parts_v1(tmp_path).unused
