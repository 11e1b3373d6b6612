"""Weights where ComfyUI's users keep them: which are offered, and that they load from there."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from aiohttp import ClientSession
from safetensors.torch import load_file, save_file

from ..paths import DEMO
from .conftest import Comfy, Install, Process, new_base, started
from .graphs import text_to_image

pytestmark = [pytest.mark.comfyui, pytest.mark.slow]

PRIOR = DEMO / "wuerstchen-prior" / "prior" / "diffusion_pytorch_model.safetensors"
DECODER = DEMO / "wuerstchen" / "decoder" / "diffusion_pytorch_model.safetensors"
VQGAN = DEMO / "wuerstchen" / "vqgan" / "diffusion_pytorch_model.safetensors"
FLUX = "double_blocks.0.img_attn.qkv.weight"
SD_VAE = "decoder.conv_in.weight"


def fill(models: Path, elsewhere: Path) -> None:
    for name in ("wuerstchen", "diffusion_models/priors", "vae", "text_encoders", "checkpoints"):
        (models / name).mkdir(parents=True)
    (models / "wuerstchen" / "linked").symlink_to(DEMO, target_is_directory=True)
    for part in ("wuerstchen", "wuerstchen-prior"):
        (models / "wuerstchen" / "no-encoder").mkdir(exist_ok=True)
        (models / "wuerstchen" / "no-encoder" / part).symlink_to(DEMO / part)
    shutil.copy(PRIOR, models / "diffusion_models" / "priors" / "finetuned.safetensors")
    shutil.copy(DECODER, models / "checkpoints" / "stage_b.safetensors")
    torch.save({"state_dict": load_file(VQGAN)}, models / "vae" / "vqgan.pt")
    for folder, name in (("diffusion_models", FLUX), ("checkpoints", FLUX), ("vae", SD_VAE)):
        save_file({name: torch.zeros(2, 2)}, models / folder / "other.safetensors")
    (models / "vae" / "broken.safetensors").write_bytes(b"not weights")
    shutil.copytree(DEMO / "wuerstchen-prior", elsewhere / "prior-only")
    shutil.copytree(DEMO / "wuerstchen-prior" / "text_encoder", models / "text_encoders" / "bigG")
    tokenizer = DEMO / "wuerstchen-prior" / "tokenizer"
    shutil.copytree(tokenizer, models / "text_encoders" / "bigG" / "tokenizer")


@pytest.fixture(scope="module")
def stocked(install: Install, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """ComfyUI with weights in its folders, and one folder that extra_model_paths.yaml names."""
    base = new_base(tmp_path_factory.mktemp("files"), "pack")
    elsewhere = base / "another disk"
    fill(base / "models", elsewhere)
    # JSON is YAML.
    paths = {"mine": {"base_path": str(base), "wuerstchen": "another disk"}}
    (base / "extra.yaml").write_text(json.dumps(paths), encoding="utf-8")
    extra = f"--extra-model-paths-config={base / 'extra.yaml'}"
    # With more memory to keep free than there is, its cache looks at all outputs all the time.
    with started(install, base, extra, "--cache-ram=4000") as process:
        yield process


@pytest.fixture
async def comfyui(stocked: Process) -> AsyncIterator[Comfy]:
    async with ClientSession() as session:
        yield Comfy(stocked, session)


async def choices(comfyui: Comfy, node_id: str, widget: str) -> list[str]:
    node: dict[str, Any] = (await comfyui.get(f"/object_info/{node_id}"))[node_id]
    return node["input"]["required"][widget][1]["options"]


FOLDERS = ["prior-only", "linked", "no-encoder", "wuerstchen-demo"]


async def test_folders_are_offered_and_the_demo_last(comfyui: Comfy) -> None:
    assert await choices(comfyui, "WuerstchenLoadPipeline", "folder") == FOLDERS
    both = [f"{folder}/{role}" for folder in FOLDERS for role in ("prior", "decoder")]
    offered = await choices(comfyui, "WuerstchenLoadTextEncoder", "name")
    assert offered == [*both, "bigG/model.safetensors"]


@pytest.mark.parametrize(
    ("node_id", "own"),
    [
        ("WuerstchenLoadStageC", "priors/finetuned.safetensors"),
        ("WuerstchenLoadStageB", "stage_b.safetensors"),
        ("WuerstchenLoadStageA", "vqgan.pt"),
        ("WuerstchenLoadImageEncoder", None),
    ],
)
async def test_of_the_shared_folders_only_what_fits_is_offered(
    comfyui: Comfy, node_id: str, own: str | None
) -> None:
    offered = await choices(comfyui, node_id, "name")
    below = tuple(
        f"{folder}/" for folder in FOLDERS
    )  # what the user put into our own folders is all there
    expected = [*FOLDERS, *([own] if own else [])]
    assert [name for name in offered if not name.startswith(below)] == expected


async def test_single_files_make_the_picture_of_the_folder(comfyui: Comfy) -> None:
    folder = await comfyui.pictures(text_to_image())
    files = text_to_image()
    for node_id, kind, name in (
        ("C", "StageC", "priors/finetuned.safetensors"),
        ("B", "StageB", "stage_b.safetensors"),
        ("A", "StageA", "vqgan.pt"),
    ):
        loader = {"name": name, "dtype": "float32"}
        files[kind] = {"class_type": f"WuerstchenLoad{kind}", "inputs": loader}
        files[node_id]["inputs"][f"stage_{node_id.lower()}"] = [kind, 0]
    loader = {"name": "bigG/model.safetensors", "dtype": "float32"}
    files["clip"] = {"class_type": "WuerstchenLoadTextEncoder", "inputs": loader}
    files["text"]["inputs"]["text_encoder"] = files["empty"]["inputs"]["text_encoder"] = ["clip", 0]
    del files["load"]
    assert np.array_equal((await comfyui.pictures(files))[0], folder[0])


async def test_a_folder_of_extra_model_paths_is_used(comfyui: Comfy) -> None:
    prompt = text_to_image()
    prompt["load"]["inputs"]["folder"] = "prior-only"
    outcome = await comfyui.run(prompt)  # it holds no other stages
    assert outcome.error is not None
    assert "prior-only has no stage" in outcome.error["exception_message"]


async def test_parts_that_are_not_wired_need_not_be_there(comfyui: Comfy) -> None:
    prompt = text_to_image()
    prompt["load"]["inputs"]["folder"] = "no-encoder"
    for seed in (1, 2):
        prompt["C"]["inputs"]["seed"] = seed
        assert len(await comfyui.pictures(prompt)) == 1


@pytest.mark.parametrize("name", ["../../input/example.png", "/etc/passwd", "no-such-folder"])
async def test_what_is_not_offered_is_refused(comfyui: Comfy, name: str) -> None:
    prompt = text_to_image()
    prompt["load"]["inputs"]["folder"] = name
    status, answer = await comfyui.post("/prompt", {"prompt": prompt})
    assert status == 400
    assert answer["node_errors"]["load"]["errors"][0]["type"] == "value_not_in_list"


async def test_comfyui_lists_the_folder_itself(comfyui: Comfy) -> None:
    assert "wuerstchen" in await comfyui.get("/models")
    assert "prior-only/prior/diffusion_pytorch_model.safetensors" in await comfyui.get(
        "/models/wuerstchen"
    )
