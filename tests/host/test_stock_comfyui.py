"""The stock nodes beside ComfyUI's own, on the same inputs.

Needs a checkout of ComfyUI 0.33 in COMFYUI_DIR and a Python with its requirements in
COMFYUI_PYTHON; ComfyUI runs there in a process of its own.
"""

import json
import os
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin
from safetensors import safe_open

from comfyui_wuerstchen.host.folders import Folders, HostSurroundings
from comfyui_wuerstchen.host.registry import Nodes
from comfyui_wuerstchen.host.server.object_info import object_info
from comfyui_wuerstchen.host.stock import STOCK_DISPLAY_NAMES, STOCK_NODES
from comfyui_wuerstchen.host.stock.scaling import CROPS, METHODS
from comfyui_wuerstchen.nodes.runtime import use

from .stock_calls import CALLS, write_inputs

pytestmark = [pytest.mark.comfyui, pytest.mark.slow]

REFERENCE = "0.33."
RUNNER = Path(__file__).with_name("comfyui_runner.py")


class Comfy(NamedTuple):
    nodes: dict[str, Any]
    answers: list[Any]  # to CALLS
    folder: Path


@pytest.fixture(scope="module")
def comfyui(tmp_path_factory: pytest.TempPathFactory) -> Comfy:
    checkout, python = os.environ.get("COMFYUI_DIR"), os.environ.get("COMFYUI_PYTHON")
    if not checkout or not python:
        pytest.skip("COMFYUI_DIR and COMFYUI_PYTHON do not name a ComfyUI and its Python")
    version = (Path(checkout) / "comfyui_version.py").read_text(encoding="utf-8").split('"')[-2]
    if not version.startswith(REFERENCE):
        pytest.skip(f"the stock nodes are held against ComfyUI {REFERENCE}x; this is {version}")
    folder = tmp_path_factory.mktemp("comfyui")
    write_inputs(folder)
    torch.save(CALLS, folder / "calls.pt")
    command = [python, str(RUNNER), checkout, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    answers = torch.load(folder / "answers.pt", weights_only=True)
    described = json.loads((folder / "nodes.json").read_text(encoding="utf-8"))
    return Comfy(described, answers, folder)


# What the canvas learns.


def plain(info: dict[str, Any]) -> dict[str, Any]:
    """A node's description without words of its own, files, and two spellings of "nothing"."""
    inputs = {
        section: {name: plain_input(declared) for name, declared in names.items()}
        for section, names in info["input"].items()
    }
    return {
        "input": inputs,
        "input_order": info["input_order"],
        "is_input_list": bool(info["is_input_list"]),
        "output": list(info["output"]),
        "output_is_list": list(info["output_is_list"]),
        "output_name": list(info["output_name"]),
        "display_name": info["display_name"],
        "category": info["category"],
        "output_node": bool(info["output_node"]),
        "deprecated": bool(info.get("deprecated")),
        "search_aliases": list(info.get("search_aliases") or []),
        "essentials_category": info.get("essentials_category"),
    }


def plain_input(declared: Any) -> Any:
    if isinstance(declared, str):
        return declared
    kind, *options = declared
    wanted = {key: value for key, value in (options or [{}])[0].items() if key != "tooltip"}
    is_files = isinstance(kind, (list, tuple)) and not set(kind) & {*METHODS, *CROPS, "alpha"}
    return ["files" if is_files else kind, wanted]


@pytest.mark.parametrize("node_id", sorted(STOCK_NODES))
def test_the_canvas_sees_the_same_node(comfyui: Comfy, node_id: str, folders: Folders) -> None:
    ours = object_info(Nodes(STOCK_NODES, STOCK_DISPLAY_NAMES), folders)[node_id]
    theirs = comfyui.nodes[node_id]
    if theirs["display_name"] is None:  # the canvas then shows the id
        theirs = {**theirs, "display_name": node_id}
    assert plain(json.loads(json.dumps(ours))) == plain(theirs)


# What the nodes give.


SAVING = {"SaveImage", "SaveLatent"}
UNCALLED = {"PreviewImage"}  # writes what SaveImage writes, under a random name


def test_every_node_is_called() -> None:
    assert {node_id for node_id, _ in CALLS} == STOCK_NODES.keys() - UNCALLED


@pytest.mark.parametrize("node_id", sorted(STOCK_NODES.keys() - UNCALLED - SAVING))
def test_the_same_inputs_give_the_same_outputs(comfyui: Comfy, node_id: str) -> None:
    """Where ComfyUI refuses its inputs, ours may answer or refuse."""
    compared = Counter()
    folders = Folders(comfyui.folder, comfyui.folder, comfyui.folder)
    node: Any = STOCK_NODES[node_id]
    with use(HostSurroundings(folders)):
        for (called, inputs), theirs in zip(CALLS, comfyui.answers, strict=True):
            if called != node_id:
                continue
            compared["refused" if isinstance(theirs, str) else "equal"] += 1
            if not isinstance(theirs, str):
                answer = getattr(node(), node.FUNCTION)(**inputs)
                ours = answer["result"] if isinstance(answer, dict) else answer
                assert_equal(list(ours), theirs, f"{node_id} {shapes(inputs)}")
    assert compared["equal"] > 0.7 * compared.total(), compared


def test_the_same_files_are_saved(comfyui: Comfy, folders: Folders) -> None:
    with use(HostSurroundings(folders)):
        for node_id, inputs in CALLS:
            if node_id in SAVING:
                node: Any = STOCK_NODES[node_id]
                getattr(node(), node.FUNCTION)(**inputs)
    theirs = saved_files(comfyui.folder / "output")
    ours = saved_files(folders.output)
    assert ours.keys() == theirs.keys() and len(theirs) == 7
    for name, (values, about) in theirs.items():
        torch.testing.assert_close(ours[name][0], values, rtol=0, atol=0)
        assert about.items() <= ours[name][1].items()


def saved_files(folder: Path) -> dict[str, tuple[torch.Tensor, dict[str, str]]]:
    """What each file holds, and what is written beside it."""
    found = {}
    for path in folder.rglob("*.png"):
        with Image.open(path) as image:
            assert isinstance(image, PngImagePlugin.PngImageFile)
            found[path] = torch.from_numpy(np.array(image)), dict(image.text)
    for path in folder.rglob("*.latent"):
        with safe_open(path, "pt") as file:
            found[path] = file.get_tensor("latent_tensor"), file.metadata()
    return {path.relative_to(folder).as_posix(): held for path, held in found.items()}


def shapes(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return tuple(value.shape)
    if isinstance(value, dict):
        return {key: shapes(one) for key, one in value.items()}
    return [shapes(one) for one in value] if isinstance(value, (list, tuple)) else value


def assert_equal(ours: Any, theirs: Any, place: str) -> None:
    if isinstance(theirs, torch.Tensor):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape), place
        torch.testing.assert_close(
            ours, theirs, rtol=1e-5, atol=2e-6, msg=lambda m: f"{place}\n{m}"
        )
    elif isinstance(theirs, dict):
        assert ours.keys() == theirs.keys(), place
        for key in theirs:
            assert_equal(ours[key], theirs[key], f"{place} {key}")
    elif isinstance(theirs, (list, tuple)):
        assert len(ours) == len(theirs), place
        for one, other in zip(ours, theirs, strict=True):
            assert_equal(one, other, place)
    else:
        assert ours == theirs, place
