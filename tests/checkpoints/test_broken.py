"""Every loader refuses what it cannot use with one sentence that says what it is."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from comfyui_wuerstchen.wuerstchen_core.checkpoints import (
    find_parts,
    load_image_encoder,
    load_stage_a,
    load_stage_b,
    load_stage_c,
    load_text_encoder,
)
from comfyui_wuerstchen.wuerstchen_core.checkpoints.detect import Kind, detect
from comfyui_wuerstchen.wuerstchen_core.checkpoints.read import read_states
from comfyui_wuerstchen.wuerstchen_core.embeddings import read_embedding
from comfyui_wuerstchen.wuerstchen_core.errors import (
    ForeignCheckpointError,
    MismatchedCheckpointError,
    MissingPartError,
    SettingError,
    UnreadableCheckpointError,
)

from . import broken
from .tiny import networks, write_file

LOADERS = {
    "stage_c": load_stage_c,
    "stage_b": load_stage_b,
    "stage_a": load_stage_a,
    "image_encoder": load_image_encoder,
    "text_encoder": load_text_encoder,
}
STAGES = [name for name in LOADERS if name != "text_encoder"]
WEIGHTS = "diffusion_pytorch_model.safetensors"

# What each kind is known by, in the names that its files really have.
FOREIGN = {
    Kind.CASCADE_C: ["clip_txt_pooled_mapper.weight", "clip_img_mapper.weight", "clf.1.weight"],
    Kind.CASCADE_B: ["effnet_mapper.0.weight", "clip_mapper.weight", "embedding.1.weight"],
    Kind.CASCADE_ENCODER: [
        "backbone.0.0.weight",
        "mapper.0.weight",
        "mapper.1.running_mean",
    ],
    Kind.PREVIEWER: ["blocks.0.weight", "blocks.2.running_mean"],
    Kind.STAGE_B_V1: ["in_mapper.0.weight", "byt5_mapper.weight", "out_mapper.1.weight"],
    Kind.IMAGE_ENCODER_V1: ["backbone.0.0.weight", "backbone.8.0.weight", "mapper.0.weight"],
    Kind.STABLE_DIFFUSION: [
        "model.diffusion_model.input_blocks.0.0.weight",
        "first_stage_model.encoder.conv_in.weight",
        "conditioner.embedders.0.transformer.text_model.embeddings.token_embedding.weight",
    ],
    Kind.VAE: ["encoder.conv_in.weight", "decoder.conv_in.weight"],
    Kind.FLUX: ["double_blocks.0.img_attn.qkv.weight", "img_in.weight"],
    Kind.LORA: ["prior.blocks.2.attention.to_q.lora_A.weight"],
    Kind.CLIP_VISION: ["vision_model.embeddings.class_embedding", "visual_projection.weight"],
    Kind.EMBEDDING: ["clip_g", "clip_l"],
    Kind.CONTROLNET: ["controlnet_cond_embedding.conv_in.weight", "conv_in.weight"],
    Kind.UPSCALER: ["conv_first.weight", "body.0.rdb1.conv1.weight"],
    Kind.T5: ["encoder.block.0.layer.0.SelfAttention.q.weight", "shared.weight"],
    Kind.LANGUAGE_MODEL: ["model.layers.0.self_attn.q_proj.weight", "model.norm.weight"],
    Kind.UNKNOWN: ["conv.weight"],
}


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("spoil", broken.UNREADABLE, ids=lambda spoil: spoil.__name__)
def test_unreadable(loader: str, spoil: broken.Spoil, tmp_path: Path) -> None:
    path = spoil(tmp_path)
    with pytest.raises(UnreadableCheckpointError) as caught:
        LOADERS[loader](path)
    assert_readable(str(caught.value))
    assert not broken.trace_of(tmp_path).exists()


@pytest.mark.parametrize("name", ["c.safetensors", "c.pt"])
def test_cut_off_anywhere(name: str, tmp_path: Path) -> None:
    path = write_file(tmp_path / name, networks()["stage_c"].state_dict())
    content = path.read_bytes()
    for length in range(0, len(content), len(content) // 25):
        path.write_bytes(content[:length])
        with pytest.raises(UnreadableCheckpointError):
            load_stage_c(path)


def repeated() -> torch.Tensor:
    """Sixteen million values that take four bytes in a file."""
    return torch.zeros(1).expand(4_000_000, 4)


@pytest.mark.parametrize(
    "value",
    [repeated(), repeated().to_sparse(), torch.empty(4, 4, device="meta")],
    ids=["strides", "sparse", "meta"],
)
def test_values_that_are_not_in_the_file(value: torch.Tensor, tmp_path: Path) -> None:
    torch.save({"projection.weight": value}, tmp_path / "small.pt")
    assert (tmp_path / "small.pt").stat().st_size < 10_000
    with pytest.raises(UnreadableCheckpointError, match="projection.weight.*not all in the file"):
        read_states(tmp_path / "small.pt")


def test_an_embedding_of_values_that_are_not_in_the_file(tmp_path: Path) -> None:
    content = {"string_to_param": {"*": repeated()}}
    torch.save(content, tmp_path / "small.pt")
    with pytest.raises(UnreadableCheckpointError, match="not all in the file"):
        read_embedding(tmp_path / "small.pt", 4)


def test_code_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableCheckpointError, match=r"Python code \(\w+\.mkdir\)"):
        load_stage_c(broken.code_in_torch_file(tmp_path))
    with pytest.raises(UnreadableCheckpointError, match="pickle"):
        load_stage_c(broken.code_in_pickle(tmp_path))


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("kind", FOREIGN, ids=lambda kind: kind.name)
def test_foreign(loader: str, kind: Kind, tmp_path: Path) -> None:
    assert detect(FOREIGN[kind]) is kind
    state = {name: torch.zeros(4, 4) for name in FOREIGN[kind]}
    with pytest.raises(ForeignCheckpointError) as caught:
        LOADERS[loader](write_file(tmp_path / "foreign.safetensors", state))
    assert kind.advice in str(caught.value)
    assert kind is Kind.UNKNOWN or kind.title in str(caught.value)
    assert_readable(str(caught.value))


@pytest.mark.parametrize(
    ("loader", "part"),
    [(loader, part) for loader in LOADERS for part in STAGES if loader != part],
)
def test_other_stage(loader: str, part: str, tmp_path: Path) -> None:
    path = write_file(tmp_path / "weights.pt", networks()[part].state_dict())
    with pytest.raises(ForeignCheckpointError, match="load it as"):
        LOADERS[loader](path)


def test_stable_cascade(tmp_path: Path) -> None:
    with pytest.raises(ForeignCheckpointError, match="Stable Cascade Stage C"):
        load_stage_c(broken.stable_cascade(tmp_path))


def test_missing_and_unexpected_tensors_are_listed(tmp_path: Path) -> None:
    state = networks()["stage_c"].state_dict()
    gone = [name for name in state if name.startswith("blocks.5.")]
    state = {name: value for name, value in state.items() if name not in gone}
    state |= {f"extra.{i}": torch.zeros(1) for i in range(20)}
    state["out.1.bias"] = torch.zeros(31)
    state["blocks.0.depthwise.bias"] = torch.zeros(128, dtype=torch.int8)
    with pytest.raises(MismatchedCheckpointError) as caught:
        load_stage_c(write_file(tmp_path / "c.pt", state))
    message = str(caught.value)
    assert f"{len(gone)} tensors missing (blocks.5." in message
    assert "20 tensors unexpected (extra.0, extra.1" in message
    assert "out.1.bias is 31, expected 32" in message
    assert "quantised to integers (blocks.0.depthwise.bias" in message
    assert "extra.8" not in message and len(message) < 1000


@pytest.mark.parametrize("loader", STAGES)
def test_counters_may_be_missing_or_extra(loader: str, tmp_path: Path) -> None:
    state = networks()[loader].state_dict()
    state = {name: v for name, v in state.items() if not name.endswith("num_batches_tracked")}
    state["other.num_batches_tracked"] = torch.tensor(3)
    LOADERS[loader](write_file(tmp_path / "weights.safetensors", state))


@pytest.mark.parametrize(
    ("part", "field", "value", "says"),
    [
        ("stage_c", "c", 256, "c is 256 in config.json and 128 in the weights"),
        ("stage_c", "depth", 3, "depth is 3 in config.json and 2 in the weights"),
        ("stage_b", "c_hidden", [32, 64, 64, 64], "and [32, 64, 64, 128] in the weights"),
        ("stage_b", "clip_embd", 1024, "clip_embd is 1024 in config.json and 48"),
        ("stage_b", "inject_effnet", [True] * 4, "inject_effnet is [True, True, True, True]"),
        ("stage_a", "bottleneck_blocks", 12, "is 12 in config.json and 2 in the weights"),
        ("image_encoder", "c_latent", 4, "c_latent is 4 in config.json and 16"),
        ("stage_c", "c", "wide", "c to 'wide'"),
        ("stage_c", "nhead", 3, "128 channels cannot be split among 3 heads"),
        ("stage_b", "nhead", [-1, -1, 1, 1], "split among -1 heads"),
        ("stage_b", "nhead", [1, 1], "no possible network"),
        ("stage_b", "level_config", ["CT", "CTX", "CTA", "CTA"], "no possible network"),
        ("image_encoder", "stages", [[True, 1]], "rows of [fused, expand, stride, channels"),
        ("image_encoder", "stages", [["a"] * 5], "no possible network"),
        ("stage_c", "depth", 10**9, "depth to 1000000000, and the weights are only"),
        ("stage_b", "blocks", [1, 2, 10**9, 1], "blocks to [1, 2, 1000000000, 1]"),
        ("stage_a", "bottleneck_blocks", 10**9, "bottleneck_blocks to 1000000000"),
    ],
)
def test_config_that_disagrees(
    part: str, field: str, value: object, says: str, published: Path, tmp_path: Path
) -> None:
    source = find_parts(published).require(part)
    config = json.loads((source / "config.json").read_text()) | {field: value}
    (tmp_path / "config.json").write_text(json.dumps(config))
    shutil.copy(source / WEIGHTS, tmp_path / WEIGHTS)
    with pytest.raises(MismatchedCheckpointError) as caught:
        LOADERS[part](tmp_path)
    assert says in str(caught.value)
    assert_readable(str(caught.value))


@pytest.mark.parametrize("content", ["", "{", "[]", "\x00"])
@pytest.mark.parametrize("loader", LOADERS)
def test_broken_config(loader: str, content: str, published: Path, tmp_path: Path) -> None:
    part = "prior_text_encoder" if loader == "text_encoder" else loader
    shutil.copytree(find_parts(published).require(part), tmp_path / "part")
    (tmp_path / "part" / "config.json").write_text(content)
    with pytest.raises(UnreadableCheckpointError) as caught:
        LOADERS[loader](tmp_path / "part")
    assert_readable(str(caught.value))


def test_text_encoder_without_its_tokenizer_or_config(published: Path, tmp_path: Path) -> None:
    folder = tmp_path / "text_encoder"
    shutil.copytree(find_parts(published).require("prior_text_encoder"), folder)
    with pytest.raises(MissingPartError, match="tokenizer"):
        load_text_encoder(folder)
    (folder / "config.json").unlink()
    with pytest.raises(MissingPartError, match=r"vocab\.json and merges\.txt"):
        load_text_encoder(folder)


def test_broken_tokenizer(published: Path, tmp_path: Path) -> None:
    shutil.copytree(published / "wuerstchen", tmp_path / "wuerstchen")
    for file in (tmp_path / "wuerstchen" / "tokenizer").iterdir():
        file.write_text("{")
    with pytest.raises(UnreadableCheckpointError, match="tokenizer"):
        load_text_encoder(tmp_path / "wuerstchen" / "text_encoder")


def test_text_encoder_that_lacks_layers(published: Path, tmp_path: Path) -> None:
    shutil.copytree(published / "wuerstchen", tmp_path / "wuerstchen")
    weights = tmp_path / "wuerstchen" / "text_encoder" / "model.safetensors"
    state = {name: value for name, value in load_file(weights).items() if ".layers.1." not in name}
    save_file(state, weights)
    with pytest.raises(MismatchedCheckpointError, match="16 tensors missing"):
        load_text_encoder(weights.parent)


def test_float16_on_the_cpu(published: Path) -> None:
    with pytest.raises(SettingError, match="float16"):
        load_stage_c(published / "wuerstchen-prior" / "prior", "float16", torch.device("cpu"))


def test_made_up_numbers_in_names(tmp_path: Path) -> None:
    """They must not make a network that takes for ever to build."""
    state = networks()["stage_c"].state_dict()
    state["blocks.999999999.depthwise.weight"] = torch.zeros(1)
    with pytest.raises(MismatchedCheckpointError, match="blocks.999999999"):
        load_stage_c(write_file(tmp_path / "c.safetensors", state))


def test_a_text_encoder_with_a_made_up_depth(published: Path, tmp_path: Path) -> None:
    shutil.copytree(published / "wuerstchen", tmp_path / "wuerstchen")
    folder = tmp_path / "wuerstchen" / "text_encoder"
    config = json.loads((folder / "config.json").read_text()) | {"num_hidden_layers": 10**9}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(MismatchedCheckpointError, match="1000000000 layers") as caught:
        load_text_encoder(folder)
    assert_readable(str(caught.value))


def assert_readable(message: str) -> None:
    """One short sentence."""
    assert message.endswith(".") and ". " not in message and "\n" not in message
    assert len(message) < 600
