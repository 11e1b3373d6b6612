"""`wuerstchen inspect` says what files are."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from comfyui_wuerstchen.host.cli import main
from comfyui_wuerstchen.wuerstchen_core.stage_c import StageC, StageCConfig

from ..paths import DEMO
from . import broken, towers
from .test_broken import FOREIGN, assert_readable
from .test_check import write_holes
from .test_published_files import published_state
from .test_sizes import PUBLISHED
from .tiny import in_original_layout, networks, write_file


def inspected(capsys: pytest.CaptureFixture[str], *paths: Path) -> list[dict[str, Any]]:
    assert main(["inspect", "--json", *map(str, paths)]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("part", PUBLISHED)
@pytest.mark.parametrize("layout", ["diffusers", "original"])
def test_published_files(
    part: str, layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = published_state(part)
    state = in_original_layout(state) if layout == "original" else state
    path = tmp_path / "weights.safetensors"
    write_holes(path, {name: value.shape for name, value in state.items()}, torch.float16)
    (found,) = inspected(capsys, path)
    _, config, _, parameters = PUBLISHED[part]
    assert found["kind"] == part and found["problem"] is None
    assert found["parameters"] == parameters and found["tensors"] == len(state)
    assert found["bytes"] == path.stat().st_size
    assert list(found["dtypes"]) == ["float16"]
    same_names = part == "image_encoder"
    assert found["layout"] == ("diffusers" if same_names else layout)
    assert (found["config_from"], found["format"]) == ("the shapes", "safetensors")
    stated = {name: getattr(config, name) for name in found["config"]}
    assert found["config"] == json.loads(json.dumps(stated))
    assert found["comfyui_folder"].startswith("models/")


def test_the_demo_folder(capsys: pytest.CaptureFixture[str]) -> None:
    found = [one for one in inspected(capsys, DEMO) if one["kind"] != "lora"]
    assert sorted(one["kind"] for one in found) == [
        "image_encoder",
        "stage_a",
        "stage_b",
        "stage_c",
        "text_encoder",
        "text_encoder",
    ]
    assert {one["config_from"] for one in found} == {"config.json"}
    assert not any(one["problem"] for one in found)
    assert 9.0e6 < sum(one["parameters"] for one in found) < 9.8e6


def test_the_prior_of_v1_is_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with torch.device("meta"):
        network = StageC(StageCConfig(c=64, c_cond=1024, depth=1, nhead=1))
    path = tmp_path / "model_stage_c.safetensors"
    write_holes(path, {name: value.shape for name, value in network.state_dict().items()})
    (found,) = inspected(capsys, path)
    assert (found["kind"], found["part"]) == ("stage_c", "stage_c_v1")
    assert "v1" in found["title"] and "v1 Pipeline" in found["advice"] and not found["problem"]


def test_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = networks()
    content = {
        "state_dict": in_original_layout(parts["stage_b"].state_dict()),
        "effnet_state_dict": parts["image_encoder"].state_dict(),
    }
    path = write_file(tmp_path / "model_v2_stage_b.pt", content)
    assert main(["inspect", str(path)]) == 0
    text = capsys.readouterr().out
    for said in (
        "Würstchen v2 Stage B (the decoder)",
        "the Würstchen v2 image encoder",
        "torch, zipped",
        "layout   original",
        "c_hidden [32, 64, 64, 128]",
        "(from the shapes)",
        "models/diffusion_models",
        "load it as Stage B",
    ):
        assert said in text, text


@pytest.mark.parametrize(
    ("layout", "says"),
    [
        ("transformers", "transformers"),
        ("transformers 5", "transformers5"),
        ("open_clip", "open_clip, with text_projection.weight"),
        ("SDXL checkpoint", "open_clip, below conditioner.embedders.1.model."),
    ],
)
def test_text_encoders(
    layout: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = towers.open_clip_tower(500).state_dict()
    path = write_file(tmp_path / "clip.safetensors", towers.LAYOUTS[layout](stored))
    found = inspected(capsys, path)
    tower = found[-1]
    assert tower["kind"] == "text_encoder" and tower["layout"].startswith(says)
    assert tower["config"]["hidden_size"] == towers.WIDTH
    assert tower["config"]["vocab_size"] == 500 and not tower["problem"]
    assert [one["kind"] for one in found[:-1]] == (
        ["stable_diffusion"] if layout == "SDXL checkpoint" else []
    )


@pytest.mark.parametrize("kind", FOREIGN, ids=lambda kind: kind.name)
def test_strangers(kind: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = {name: torch.zeros(4, 4) for name in FOREIGN[kind]}
    (found,) = inspected(capsys, write_file(tmp_path / "foreign.safetensors", state))
    assert (found["kind"], found["title"]) == (kind.name.lower(), kind.title)
    assert found["advice"] == kind.advice


def test_what_does_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = networks()["stage_c"].state_dict()
    del state["out.1.bias"]
    (found,) = inspected(capsys, write_file(tmp_path / "c.safetensors", state))
    assert found["kind"] == "stage_c" and "1 tensors missing (out.1.bias)" in found["problem"]


@pytest.mark.parametrize("spoil", broken.UNREADABLE, ids=lambda spoil: spoil.__name__)
def test_what_cannot_be_read(
    spoil: broken.Spoil, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "source").mkdir()
    path = spoil(tmp_path / "source")
    whole = write_file(tmp_path / "a.safetensors", networks()["stage_a"].state_dict())
    assert main(["inspect", str(path), str(whole)]) == 2
    out, err = capsys.readouterr()
    assert "Würstchen Stage A" in out  # the other file is still told
    assert_readable(err.strip())
    assert main(["inspect", "--json", str(path)]) == 2
    (found,) = json.loads(capsys.readouterr().out)
    assert_readable(found["error"])
    assert not broken.trace_of(tmp_path / "source").exists()


def test_float8_and_mixed_dtypes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = networks()["stage_c"].state_dict()
    low = {n: v.to(torch.float8_e4m3fn) if v.ndim == 2 else v for n, v in state.items()}
    path = write_file(tmp_path / "c.safetensors", low)
    (found,) = inspected(capsys, path)
    assert set(found["dtypes"]) == {"float8_e4m3fn", "float32"}
    assert sum(found["dtypes"].values()) == found["parameters"]
    assert main(["inspect", str(path)]) == 0
    assert "%)" in capsys.readouterr().out


def test_an_embedding_as_automatic1111_writes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = {
        "string_to_token": {"*": 265},
        "string_to_param": {"*": torch.zeros(4, 1280)},
        "name": "style",
        "step": 500,
    }
    torch.save(content, tmp_path / "style.pt")
    (found,) = inspected(capsys, tmp_path / "style.pt")
    assert found["kind"] == "embedding" and found["folder"] == "models/embeddings"
    assert (found["tensors"], found["parameters"]) == (1, 4 * 1280)


def test_a_lora(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"prior.blocks.{b}.attention.{p}" for b in (2, 5) for p in ("to_q", "to_v")]
    state = {f"{name}.lora_A.weight": torch.zeros(4, 128) for name in names}
    state |= {f"{name}.lora_B.weight": torch.zeros(128, 4) for name in names}
    (found,) = inspected(capsys, write_file(tmp_path / "lora.safetensors", state))
    assert found["kind"] == "lora" and found["config"]["rank"] == [4]
    assert found["config"]["modules"] == 4 and found["config"]["kinds"] == {"Lora": 4}
    assert not found["problem"] and found["comfyui_folder"] == "models/loras"
