"""Which weights the loaders offer, and what a choice may reach."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from comfyui_wuerstchen.nodes.choices import (
    folder_choices,
    lora_choices,
    part_choices,
    path_of,
    resolve,
    stamp,
    text_encoder_files,
)
from comfyui_wuerstchen.nodes.runtime import PlainSurroundings, use
from comfyui_wuerstchen.wuerstchen_core.checkpoints.detect import Kind
from comfyui_wuerstchen.wuerstchen_core.checkpoints.peek import offers, peek
from comfyui_wuerstchen.wuerstchen_core.errors import CheckpointError

from ..paths import DEMO

PRIOR = DEMO / "wuerstchen-prior" / "prior" / "diffusion_pytorch_model.safetensors"
VQGAN = DEMO / "wuerstchen" / "vqgan" / "diffusion_pytorch_model.safetensors"
FLUX = {"double_blocks.0.img_attn.qkv.weight": torch.zeros(2, 2)}


@dataclass
class Kinds(PlainSurroundings):
    """Folders below one, by the kind of models, as ComfyUI has them."""

    models: Path

    def models_dirs(self, kind: str) -> list[Path]:
        return [self.models / kind]


@pytest.fixture
def models(tmp_path: Path) -> Iterator[Path]:
    for kind in ("wuerstchen", "vae", "diffusion_models", "checkpoints", "text_encoders"):
        (tmp_path / kind).mkdir()
    with use(Kinds(tmp_path)):
        yield tmp_path


def test_the_demo_is_offered_always_and_last(models: Path) -> None:
    assert folder_choices() == ["wuerstchen-demo"]
    (models / "wuerstchen" / "mine").mkdir()
    assert folder_choices() == ["mine", "wuerstchen-demo"]


def test_shared_folders_show_only_what_fits(models: Path) -> None:
    (models / "vae" / "below").mkdir()
    os.symlink(VQGAN, models / "vae" / "below" / "vqgan.safetensors")
    torch.save({"state_dict": load_file(VQGAN)}, models / "vae" / "vqgan.pt")
    save_file(FLUX, models / "vae" / "flux.safetensors")
    os.symlink(PRIOR, models / "vae" / "prior.safetensors")
    (models / "vae" / "gone.safetensors").symlink_to(models / "nowhere")
    (models / "vae" / "empty.safetensors").touch()
    offered = part_choices("stage_a")
    assert offered == ["wuerstchen-demo", "vqgan.pt", "below/vqgan.safetensors"]
    assert part_choices("stage_c") == ["wuerstchen-demo"]
    for name in offered[1:]:
        assert path_of(name, "stage_a") == models / "vae" / name


def test_a_file_that_changes_is_looked_at_anew(models: Path) -> None:
    file = models / "diffusion_models" / "model.safetensors"
    save_file(FLUX, file)
    assert part_choices("stage_c") == ["wuerstchen-demo"]
    file.write_bytes(PRIOR.read_bytes())
    assert part_choices("stage_c") == ["wuerstchen-demo", "model.safetensors"]


def test_a_config_that_comes_later_is_looked_at(models: Path) -> None:
    """A text encoder of few layers is offered only with its config.json."""
    text = DEMO / "wuerstchen-prior" / "text_encoder"
    os.symlink(text / "model.safetensors", models / "text_encoders" / "small.safetensors")
    assert "small.safetensors" not in part_choices("prior_text_encoder")
    config = models / "text_encoders" / "config.json"
    config.write_bytes((text / "config.json").read_bytes())
    assert "small.safetensors" in part_choices("prior_text_encoder")
    config.unlink()
    assert "small.safetensors" not in part_choices("prior_text_encoder")


def test_loras_among_the_weights_are_no_parts(models: Path) -> None:
    """The host's loras folder lies in the folder of weights."""
    folder = models / "wuerstchen" / "loras"
    folder.mkdir()
    lora = {f"lora_unet_a.lora_{n}.weight": torch.ones(2, 2) for n in ("down", "up")}
    save_file(lora, folder / "style.safetensors")
    assert folder_choices() == ["wuerstchen-demo"]
    assert part_choices("stage_c") == ["wuerstchen-demo"]
    assert text_encoder_files() == []
    assert lora_choices()[0] == "loras/style.safetensors"


def test_own_folders_show_all_and_links_in_a_circle_end(models: Path) -> None:
    mine = models / "wuerstchen" / "mine"
    mine.mkdir()
    save_file(FLUX, mine / "flux.safetensors")  # wrong, which the loader explains
    (mine / "again").symlink_to(models / "wuerstchen", target_is_directory=True)
    assert part_choices("stage_c") == ["mine", "wuerstchen-demo", "mine/flux.safetensors"]


@pytest.mark.parametrize("name", ["", ".", "..", "../vae/x.pt", "/etc/passwd", "mine/../../x.pt"])
def test_a_choice_stays_inside_the_models_folders(models: Path, name: str) -> None:
    (models / "x.pt").touch()
    (models / "vae" / "x.pt").touch()
    with pytest.raises(CheckpointError, match="no weights are called"):
        resolve(name, "stage_c")


def test_folders_of_a_shared_folder_are_no_choice(models: Path) -> None:
    (models / "vae" / "folder").mkdir()
    with pytest.raises(CheckpointError):
        resolve("folder", "stage_a")


def test_peek_tells_what_files_are(tmp_path: Path) -> None:
    assert peek(PRIOR) is Kind.STAGE_C
    wrapped = {f"module.{name}": value for name, value in load_file(PRIOR).items()}
    torch.save({"ema_state_dict": wrapped, "step": 3}, tmp_path / "prior.pt")
    assert peek(tmp_path / "prior.pt") is Kind.STAGE_C
    legacy = tmp_path / "legacy.pt"
    torch.save({"state_dict": wrapped}, legacy, _use_new_zipfile_serialization=False)
    assert peek(legacy) is Kind.STAGE_C


def test_all_networks_of_a_file_are_offered(tmp_path: Path) -> None:
    """model_v2_stage_b.pt holds Stage B and the image encoder."""
    encoder = DEMO / "EfficientNetEncoder" / "diffusion_pytorch_model.safetensors"
    decoder = DEMO / "wuerstchen" / "decoder" / "diffusion_pytorch_model.safetensors"
    content = {"state_dict": load_file(decoder), "effnet_state_dict": load_file(encoder)}
    torch.save(content, tmp_path / "model_v2_stage_b.pt")
    assert offers(tmp_path / "model_v2_stage_b.pt") == {Kind.STAGE_B, Kind.IMAGE_ENCODER}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04",
        b"PK\x05\x06" + bytes(18),
        b"\xff" * 8 + b"{" + b"[" * 100_000,
        b"\x02" + bytes(7) + b"{}",
        b"\x09" + bytes(7) + b'{"a": nul',
        PRIOR.read_bytes()[:5000],
        b"\x80\x02.",
    ],
    ids=["empty", "zip", "no entries", "deep", "nothing", "json", "truncated", "pickle"],
)
def test_peek_knows_nothing_of_broken_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    assert peek(tmp_path / "file") is Kind.UNKNOWN
    assert peek(tmp_path / "absent") is Kind.UNKNOWN


def test_of_two_files_of_one_name_the_fitting_one_is_meant(models: Path) -> None:
    save_file(FLUX, models / "diffusion_models" / "prior.safetensors")
    os.symlink(PRIOR, models / "checkpoints" / "prior.safetensors")
    found = resolve("prior.safetensors", "stage_c")
    assert found == models / "checkpoints" / "prior.safetensors"
    # With none that fits the first is taken, whose loader says what it is.
    assert resolve("prior.safetensors", "stage_b").parent.name == "diffusion_models"


@pytest.mark.parametrize("content", [b"PK\x03\x04 cut", b"PK\x05\x06" + b"\0" * 18, b"", b"{"])
def test_damaged_files_are_no_weights(models: Path, content: bytes) -> None:
    path = models / "checkpoints" / "odd.ckpt"
    path.write_bytes(content)
    assert peek(path) is Kind.UNKNOWN
    assert "odd.ckpt" not in part_choices("stage_c")


def test_a_zip_with_damaged_or_locked_content_is_no_weights(models: Path) -> None:
    path = models / "checkpoints" / "odd.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"tensor names " * 100)
    whole = path.read_bytes()
    start = whole.index(b"data.pkl") + len(b"data.pkl")
    path.write_bytes(whole[:start] + b"\xff" * 20 + whole[start + 20 :])  # no deflate stream
    assert peek(path) is Kind.UNKNOWN
    locked = bytearray(whole)
    for entry in (b"PK\x03\x04", b"PK\x01\x02"):  # the flag "encrypted", in both headers
        locked[whole.index(entry) + (6 if entry == b"PK\x03\x04" else 8)] |= 1
    path.write_bytes(locked)
    assert peek(path) is Kind.UNKNOWN


def test_a_changed_file_changes_the_stamp(models: Path) -> None:
    folder = models / "wuerstchen" / "mine"
    assert stamp("mine") == "missing"
    (folder / "prior").mkdir(parents=True)
    empty = stamp("mine")
    file = folder / "prior" / "weights.safetensors"
    save_file(FLUX, file)
    first = stamp("mine")
    assert len({empty, first, "missing"}) == 3 and stamp("mine") == first
    os.utime(file, ns=(1, 1))
    assert stamp("mine") != first
    assert stamp("mine/prior/weights.safetensors", "stage_c") != "missing"
