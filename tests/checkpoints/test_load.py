"""Both published layouts load to the same network, whatever the file's format and dtype."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from comfyui_wuerstchen.wuerstchen_core.checkpoints import (
    find_parts,
    load_image_encoder,
    load_stage_a,
    load_stage_b,
    load_stage_c,
    load_text_encoder,
)
from comfyui_wuerstchen.wuerstchen_core.errors import (
    ForeignCheckpointError,
    MismatchedCheckpointError,
)
from comfyui_wuerstchen.wuerstchen_core.stage_c import StageC, StageCConfig

from .tiny import (
    DECODER_WIDTH,
    PRIOR_WIDTH,
    STAGE_B,
    in_original_layout,
    networks,
    output,
    relative_error,
    with_weights,
    write_file,
)

LOADERS: dict[str, Callable[..., nn.Module]] = {
    "stage_c": load_stage_c,
    "stage_b": load_stage_b,
    "stage_a": load_stage_a,
    "image_encoder": load_image_encoder,
}
CPU = torch.device("cpu")
# Stage B is folded at load, which rounds differently.
TOLERANCE = {"stage_c": 0.0, "stage_b": 1e-5, "stage_a": 0.0, "image_encoder": 0.0}

# What the original training scripts saved: part -> (name of the state dict, beside it).
CONTAINERS = {
    "stage_c": ("ema_state_dict", {"iter": 3}),
    "stage_b": ("state_dict", {"metrics": {"loss": 0.1}}),
    "stage_a": ("state_dict", {}),
    "image_encoder": ("effnet_state_dict", {}),
}


@pytest.mark.parametrize("part", LOADERS)
def test_published_folder(part: str, published: Path) -> None:
    network = LOADERS[part](find_parts(published).require(part), "float32", CPU)
    expected = networks()[part]
    assert network.config == expected.config
    assert not network.training and not any(p.requires_grad for p in network.parameters())
    assert relative_error(output(network), output(expected)) <= TOLERANCE[part]


@pytest.mark.parametrize("part", LOADERS)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_original_file(part: str, prefix: str, tmp_path: Path) -> None:
    expected = networks()[part]
    name, extra = CONTAINERS[part]
    state = {prefix + k: v for k, v in in_original_layout(expected.state_dict()).items()}
    path = write_file(tmp_path / "weights.pt", {name: state, **extra})
    network = LOADERS[part](path, "float32", CPU)
    assert relative_error(output(network), output(expected)) <= TOLERANCE[part]


@pytest.mark.parametrize("part", LOADERS)
@pytest.mark.parametrize("name", ["misnamed.ckpt", "lone.safetensors"])
def test_lone_file_without_config(part: str, name: str, tmp_path: Path) -> None:
    expected = networks()[part]
    network = LOADERS[part](write_file(tmp_path / name, expected.state_dict()), "float32", CPU)
    assert relative_error(output(network), output(expected)) <= TOLERANCE[part]


def test_format_is_read_from_content(tmp_path: Path) -> None:
    expected = networks()["stage_a"]
    path = write_file(tmp_path / "a.safetensors", expected.state_dict()).rename(tmp_path / "a.pt")
    assert torch.equal(output(load_stage_a(path, "float32", CPU)), output(expected))


def test_both_networks_of_one_file(tmp_path: Path) -> None:
    """model_v2_stage_b.pt holds Stage B and the image encoder."""
    parts = networks()
    content = {
        "state_dict": in_original_layout(parts["stage_b"].state_dict()),
        "effnet_state_dict": parts["image_encoder"].state_dict(),
    }
    path = write_file(tmp_path / "model_v2_stage_b.pt", content)
    assert load_stage_b(path, "float32", CPU).config == STAGE_B
    encoder = load_image_encoder(path, "float32", CPU)
    assert torch.equal(output(encoder), output(parts["image_encoder"]))


def test_averaged_weights_are_preferred(tmp_path: Path) -> None:
    averaged = networks()["stage_c"].state_dict()
    raw = {name: torch.zeros_like(value) for name, value in averaged.items()}
    path = write_file(tmp_path / "c.pt", {"state_dict": raw, "ema_state_dict": averaged})
    assert load_stage_c(path, "float32", CPU).projection.weight.abs().max() > 0


def test_sharded_folder(tmp_path: Path) -> None:
    expected = networks()["stage_c"]
    names = sorted(state := expected.state_dict())
    weight_map = {name: f"part-{index % 2}.safetensors" for index, name in enumerate(names)}
    for shard in set(weight_map.values()):
        save_file({n: state[n] for n in names if weight_map[n] == shard}, tmp_path / shard)
    index = tmp_path / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    assert torch.equal(output(load_stage_c(tmp_path, "float32", CPU)), output(expected))


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_stored_in_low_precision(stored: torch.dtype, tmp_path: Path) -> None:
    state = {name: value.to(stored) for name, value in networks()["stage_b"].state_dict().items()}
    unfolded = with_weights(networks()["stage_b"])
    unfolded.load_state_dict({name: value.float() for name, value in state.items()})
    network = load_stage_b(write_file(tmp_path / "b.pt", state), "float32", CPU)
    assert relative_error(output(network), output(unfolded)) <= 1e-5


@pytest.mark.parametrize("part", LOADERS)
def test_bfloat16_keeps_what_needs_float32(part: str, published: Path) -> None:
    network = LOADERS[part](find_parts(published).require(part), "bfloat16", CPU)
    kept = {id(p) for module in network.float32_modules() for p in module.parameters()}
    for parameter in network.parameters():
        wanted = torch.float32 if id(parameter) in kept else torch.bfloat16
        assert parameter.dtype == wanted
    assert relative_error(output(network), output(networks()[part])) < 0.1


def test_heads_of_64_without_config(tmp_path: Path) -> None:
    network = with_weights(StageC(StageCConfig(c=96, c_cond=8, depth=1, nhead=3)))
    path = write_file(tmp_path / "c.safetensors", network.state_dict())
    with pytest.raises(MismatchedCheckpointError, match="config.json"):
        load_stage_c(path, "float32", CPU)


def test_a_v1_prior_is_refused_by_name(tmp_path: Path) -> None:
    network = with_weights(StageC(StageCConfig(c=64, c_cond=1024, depth=1, nhead=1)))
    path = write_file(tmp_path / "c.safetensors", network.state_dict())
    with pytest.raises(ForeignCheckpointError, match="v1 prior"):
        load_stage_c(path, "float32", CPU)


def test_config_knows_old_and_unknown_fields(published: Path, tmp_path: Path) -> None:
    source = find_parts(published).require("stage_c")
    config = json.loads((source / "config.json").read_text())
    config |= {"_diffusers_version": "0.21.0", "latent_size": [12, 12], "self_attn": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    weights = "diffusion_pytorch_model.safetensors"
    (tmp_path / weights).write_bytes((source / weights).read_bytes())
    assert load_stage_c(tmp_path, "float32", CPU).config == networks()["stage_c"].config


@pytest.mark.parametrize(("width", "role"), [(PRIOR_WIDTH, "prior"), (DECODER_WIDTH, "decoder")])
@pytest.mark.parametrize("prefix", [True, False])
def test_text_encoder(width: int, role: str, prefix: bool, published: Path, tmp_path: Path) -> None:
    folder = find_parts(published).require(f"{role}_text_encoder")
    expected = load_text_encoder(folder, "float32", CPU)
    assert expected.width == width
    state = load_file(folder / "model.safetensors")
    assert all(name.startswith("text_model.") for name in state)
    if not prefix:
        state = {name.removeprefix("text_model."): value for name, value in state.items()}
    extra = {"text_model.embeddings.position_ids": torch.arange(77)[None]} if prefix else {}
    write_file(tmp_path / "text_encoder" / "pytorch_model.bin", {**state, **extra})
    (tmp_path / "text_encoder" / "config.json").write_text((folder / "config.json").read_text())
    (tmp_path / "tokenizer").symlink_to(folder.parent / "tokenizer")
    encoder = load_text_encoder(tmp_path / "text_encoder", "float32", CPU)
    texts = ["a large red star", ""]
    assert torch.equal(encoder.encode(texts), expected.encode(texts))
    assert encoder.encode(texts).shape == (2, 77, width)
