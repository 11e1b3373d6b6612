"""The parts are found in every form that a user may have the weights in."""

import json
import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from comfyui_wuerstchen.wuerstchen_core.checkpoints import Parts, find_parts, save_network
from comfyui_wuerstchen.wuerstchen_core.errors import (
    MismatchedCheckpointError,
    MissingPartError,
    UnreadableCheckpointError,
)

from . import broken
from .tiny import in_original_layout, networks, write_file

PARTS = (
    "stage_c",
    "stage_b",
    "stage_a",
    "prior_text_encoder",
    "decoder_text_encoder",
    "image_encoder",
)
PRIOR = {"stage_c", "prior_text_encoder"}
DECODER = {"stage_b", "stage_a", "decoder_text_encoder"}


def found(parts: Parts) -> set[str]:
    return {name for name in PARTS if getattr(parts, name) is not None}


def test_side_by_side(published: Path) -> None:
    assert find_parts(published) == Parts(
        published,
        stage_c=published / "wuerstchen-prior" / "prior",
        stage_b=published / "wuerstchen" / "decoder",
        stage_a=published / "wuerstchen" / "vqgan",
        prior_text_encoder=published / "wuerstchen-prior" / "text_encoder",
        decoder_text_encoder=published / "wuerstchen" / "text_encoder",
        image_encoder=published / "EfficientNetEncoder",
    )


@pytest.mark.parametrize(
    ("repository", "holds"),
    [
        ("wuerstchen-prior", PRIOR),
        ("wuerstchen", DECODER),
        ("EfficientNetEncoder", {"image_encoder"}),
    ],
)
def test_one_repository_under_any_name(
    repository: str, holds: set[str], published: Path, tmp_path: Path
) -> None:
    shutil.copytree(published / repository, tmp_path / "renamed")
    assert found(find_parts(tmp_path / "renamed")) == holds
    assert found(find_parts(tmp_path)) == holds


def test_bare_prior_alone_and_beside_the_pipeline(published: Path, tmp_path: Path) -> None:
    variant = tmp_path / "wuerstchen-prior-model-finetuned"
    save_network(networks()["stage_c"], variant)
    assert find_parts(variant).stage_c == variant
    assert find_parts(tmp_path).stage_c == variant
    shutil.copytree(published / "wuerstchen", tmp_path / "wuerstchen")
    assert found(find_parts(tmp_path)) == DECODER | {"stage_c"}
    shutil.copytree(published / "wuerstchen-prior", tmp_path / "wuerstchen-prior")
    assert find_parts(tmp_path).stage_c == tmp_path / "wuerstchen-prior" / "prior"


def test_original_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    parts = networks()
    prior = {"ema_state_dict": in_original_layout(parts["stage_c"].state_dict())}
    contents = {
        "model_v2_stage_b.pt": {
            "state_dict": in_original_layout(parts["stage_b"].state_dict()),
            "effnet_state_dict": parts["image_encoder"].state_dict(),
        },
        "model_v2_stage_c.pt": prior,
        "model_v2_stage_c_finetune_interpolation.pt": prior,
        "vqgan_f4_v1_500k.pt": {"state_dict": in_original_layout(parts["stage_a"].state_dict())},
    }
    for name, content in contents.items():
        write_file(tmp_path / name, content)
    with caplog.at_level(logging.INFO):
        assert find_parts(tmp_path) == Parts(
            tmp_path,
            stage_c=tmp_path / "model_v2_stage_c_finetune_interpolation.pt",
            stage_b=tmp_path / "model_v2_stage_b.pt",
            stage_a=tmp_path / "vqgan_f4_v1_500k.pt",
            image_encoder=tmp_path / "model_v2_stage_b.pt",
        )
    assert "interpolation.pt; also found" in caplog.text


def test_hugging_face_cache(published: Path, tmp_path: Path) -> None:
    for repository in ("wuerstchen-prior", "wuerstchen", "EfficientNetEncoder"):
        cached = tmp_path / f"models--warp-ai--{repository}"
        for revision in ("0ld", "c0ffee"):
            shutil.copytree(published / repository, cached / "snapshots" / revision)
        (cached / "refs").mkdir()
        (cached / "refs" / "main").write_text("c0ffee")
    parts = find_parts(tmp_path)
    assert found(parts) == set(PARTS)
    assert all("c0ffee" in str(getattr(parts, name)) for name in PARTS)
    single = find_parts(tmp_path / "models--warp-ai--wuerstchen-prior")
    assert found(single) == PRIOR and "c0ffee" in str(single.stage_c)


def test_text_encoders_go_to_the_stage_that_reads_their_width(
    published: Path, tmp_path: Path
) -> None:
    """Also where the two folders were swapped."""
    shutil.copytree(published, tmp_path / "all")
    folders = [
        tmp_path / "all" / name / "text_encoder" for name in ("wuerstchen-prior", "wuerstchen")
    ]
    contents = [(f / "model.safetensors").read_bytes() for f in folders]
    for folder, content in zip(folders, reversed(contents), strict=True):
        (folder / "model.safetensors").write_bytes(content)
    parts = find_parts(tmp_path / "all")
    assert [parts.decoder_text_encoder, parts.prior_text_encoder] == folders


@pytest.mark.parametrize("part", PARTS)
def test_missing_part_says_what_to_put_where(part: str, published: Path) -> None:
    parts = replace(find_parts(published), **{part: None})
    with pytest.raises(MissingPartError) as caught:
        parts.require(part)
    expected = find_parts(published).require(part)
    file = "model.safetensors" if "text" in part else "diffusion_pytorch_model.safetensors"
    assert str(expected / file) in str(caught.value)
    assert "warp-ai/" in str(caught.value)
    assert ("tokenizer" in str(caught.value)) == ("text" in part)


def test_broken_part_is_named(published: Path, tmp_path: Path) -> None:
    shutil.copytree(published / "wuerstchen", tmp_path / "wuerstchen")
    weights = tmp_path / "wuerstchen" / "decoder" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    parts = find_parts(tmp_path)
    assert found(parts) == {"stage_a"}  # whose text encoder it is, only the decoder tells
    with pytest.raises(MissingPartError, match="decoder.*is truncated"):
        parts.require("stage_b")


@pytest.mark.parametrize("spoil", broken.UNREADABLE, ids=lambda spoil: spoil.__name__)
def test_folder_of_broken_files(spoil: broken.Spoil, tmp_path: Path) -> None:
    spoil(tmp_path)
    with pytest.raises(MissingPartError):
        find_parts(tmp_path).require("stage_c")
    assert not broken.trace_of(tmp_path).exists()


def test_foreign_files_are_named(tmp_path: Path) -> None:
    broken.stable_cascade(tmp_path)
    with pytest.raises(MissingPartError, match="is Stable Cascade Stage C"):
        find_parts(tmp_path).require("stage_c")


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(UnreadableCheckpointError, match="does not exist"):
        find_parts(tmp_path / "nothing")
    with pytest.raises(UnreadableCheckpointError, match="is a file"):
        find_parts(write_file(tmp_path / "a.pt", {"a": torch.zeros(1)}))


def test_folders_that_may_not_be_read_are_left_out(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(published / "wuerstchen", tmp_path / "wuerstchen")
    shutil.copytree(published / "wuerstchen-prior", tmp_path / "locked")
    # Tests may run as root, whom permissions do not stop.
    monkeypatch.setattr(os, "access", lambda path, mode: path.name != "locked")
    assert found(find_parts(tmp_path)) == DECODER
    with pytest.raises(UnreadableCheckpointError, match="permissions"):
        find_parts(tmp_path / "locked")


@pytest.mark.parametrize(
    ("file", "field"),
    [
        ("wuerstchen-prior/model_index.json", "latent_mean"),
        ("wuerstchen/model_index.json", "latent_dim_scale"),
        ("wuerstchen-prior/scheduler/scheduler_config.json", "scaler"),
    ],
)
def test_other_constants_than_the_published_ones_are_refused(
    file: str, field: str, published: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(published, folder)
    stated = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**stated, field: 7.0}))
    with pytest.raises(MismatchedCheckpointError, match=f"{field} 7.0"):
        find_parts(folder)
    (folder / file).write_text("{")
    with pytest.raises(UnreadableCheckpointError, match="cannot be read"):
        find_parts(folder)
