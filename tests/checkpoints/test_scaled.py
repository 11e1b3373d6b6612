"""Float8 files: plain ones, and ComfyUI's with a scale beside each weight."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from comfyui_wuerstchen.wuerstchen_core.checkpoints import (
    check_part,
    load_image_encoder,
    load_stage_a,
    load_stage_b,
    load_stage_c,
)
from comfyui_wuerstchen.wuerstchen_core.checkpoints.scaled import Multiplied
from comfyui_wuerstchen.wuerstchen_core.errors import MismatchedCheckpointError

from .test_broken import assert_readable
from .tiny import networks, output, relative_error, with_weights, write_file

CPU = torch.device("cpu")
FLOAT8 = torch.float8_e4m3fn
LOADERS: dict[str, Callable[..., nn.Module]] = {
    "stage_c": load_stage_c,
    "stage_b": load_stage_b,
    "stage_a": load_stage_a,
    "image_encoder": load_image_encoder,
}


def loaded_with(part: str, state: dict[str, Tensor]) -> nn.Module:
    """A network of exactly these weights."""
    network = with_weights(networks()[part])
    network.load_state_dict({name: value.float() for name, value in state.items()})
    return network


@pytest.mark.parametrize("part", LOADERS)
def test_plain_float8(part: str, tmp_path: Path) -> None:
    state = networks()[part].state_dict()
    low = {n: v.to(FLOAT8) if v.is_floating_point() else v for n, v in state.items()}
    network = LOADERS[part](write_file(tmp_path / "low.safetensors", low), "float32", CPU)
    assert relative_error(output(network), output(loaded_with(part, low))) <= 1e-5


def test_scaled_weights_are_multiplied_when_they_are_read() -> None:
    stored = {"a.weight": torch.ones(2, 2).to(FLOAT8), "a.bias": torch.ones(2)}
    state = Multiplied(stored, {"a.weight": torch.tensor(3.0)})
    assert state["a.bias"] is stored["a.bias"]
    assert torch.equal(state["a.weight"], torch.full((2, 2), 3.0))
    assert state["a.weight"] is not state["a.weight"]  # none is kept


def scaled(state: dict[str, Tensor], names: tuple[str, str, str]) -> dict[str, Tensor]:
    """As ComfyUI writes it. names: of the scale, of the input's scale, of the marker."""
    scale, input_scale, marker = names
    file: dict[str, Tensor] = {}
    for name, value in state.items():
        layer, _, kind = name.rpartition(".")
        if kind != "weight" or value.ndim != 2:
            file[name] = value
            continue
        factor = value.abs().max() / 448
        file[name] = (value / factor).to(FLOAT8)
        file[f"{layer}.{scale}"] = factor
        file[f"{layer}.{input_scale}"] = torch.ones(())
        if marker == "comfy_quant":
            told = json.dumps({"format": "float8_e4m3fn"}).encode()
            file[f"{layer}.comfy_quant"] = torch.tensor(list(told), dtype=torch.uint8)
    if marker == "scaled_fp8":
        file["scaled_fp8"] = torch.zeros(2, dtype=FLOAT8)
    return file


@pytest.mark.parametrize(
    "names",
    [
        ("scale_weight", "scale_input", "scaled_fp8"),
        ("weight_scale", "input_scale", "comfy_quant"),
    ],
    ids=["older", "newer"],
)
def test_scaled_float8(names: tuple[str, str, str], tmp_path: Path) -> None:
    state = networks()["stage_c"].state_dict()
    file = scaled(state, names)
    meant = {
        name: value.float() * file[f"{name.rpartition('.')[0]}.{names[0]}"]
        if value.dtype is FLOAT8
        else value
        for name, value in file.items()
        if name in state
    }
    assert any(value.dtype is FLOAT8 for value in file.values())
    path = write_file(tmp_path / "c.safetensors", file)
    check_part("stage_c", path)
    network = load_stage_c(path, "float32", CPU)
    for name, value in network.state_dict().items():
        assert torch.equal(value, meant[name]), name
    assert relative_error(output(network), output(networks()["stage_c"])) < 0.2


def quantised(state: dict[str, Tensor], told: str, dtype: torch.dtype) -> dict[str, Tensor]:
    text = torch.tensor(list(told.encode()), dtype=torch.uint8)
    weight = state["cond_mapper.0.weight"].to(dtype)
    return {
        **state,
        "cond_mapper.0.weight": weight,
        "cond_mapper.0.weight_scale": torch.ones(()),
        "cond_mapper.0.comfy_quant": text,
    }


@pytest.mark.parametrize(
    ("told", "dtype", "says"),
    [
        ('{"format": "nvfp4"}', torch.uint8, "quantised as nvfp4"),
        ("{", FLOAT8, "quantised as an unknown format"),
        ('{"format": "float8_e4m3fn"}', torch.int8, "only its own program reads"),
    ],
)
def test_other_ways_of_packing_are_refused(
    told: str, dtype: torch.dtype, says: str, tmp_path: Path
) -> None:
    state = quantised(networks()["stage_c"].state_dict(), told, dtype)
    path = write_file(tmp_path / "c.safetensors", state)
    with pytest.raises(MismatchedCheckpointError, match=says) as caught:
        load_stage_c(path, "float32", CPU)
    assert_readable(str(caught.value))


def test_a_scale_for_each_row_is_refused(tmp_path: Path) -> None:
    state = quantised(networks()["stage_c"].state_dict(), '{"format": "float8_e4m3fn"}', FLOAT8)
    state["cond_mapper.0.weight_scale"] = torch.ones(len(state["cond_mapper.0.weight"]))
    with pytest.raises(MismatchedCheckpointError, match="one scale a weight"):
        check_part("stage_c", write_file(tmp_path / "c.safetensors", state))
