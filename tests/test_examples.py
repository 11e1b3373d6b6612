"""The example workflows and the command line on the demo checkpoint, as a newcomer runs them."""

import json
import pickle
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from comfyui_wuerstchen.host.cli import main
from comfyui_wuerstchen.host.graph_file import load_graph
from comfyui_wuerstchen.host.registry import default_nodes
from comfyui_wuerstchen.nodes import NODE_CLASS_MAPPINGS
from comfyui_wuerstchen.wuerstchen_core.training.demo.checker import check

from .examples import FOR_COMFYUI, HOSTED, ON_DEMO
from .paths import WORKFLOWS

QUICK = ["--set", "Stage B.steps=4"]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs `wuerstchen run` in an empty folder -> (exit code, saved pictures, error lines)."""
    monkeypatch.chdir(tmp_path)

    def call(graph: Path | dict[str, Any], *arguments: str) -> tuple[int, list[Path], list[str]]:
        if isinstance(graph, dict):
            (tmp_path / "graph.json").write_text(json.dumps(graph), encoding="utf-8")
            graph = tmp_path / "graph.json"
        code = main(["run", str(graph), *arguments])
        out, err = capsys.readouterr()
        pictures = [Path(line) for line in out.splitlines() if line.endswith(".png")]
        lines = (line for line in err.splitlines() if line and not line.startswith("WARNING"))
        errors = [line for line in lines if not re.search(r": \d+\.\d s$", line)]  # no progress
        return code, pictures, errors

    return call


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def reading(path: Path):
    return check(torch.from_numpy(pixels(path).copy()).movedim(-1, 0)[None] / 255)[0]


@pytest.mark.parametrize("example", ON_DEMO, ids=lambda path: path.name)
def test_every_example_runs(run, example: Path) -> None:
    code, pictures, errors = run(example, *QUICK)
    assert code == 0, errors
    made = pixels(pictures[0])
    assert min(made.shape[:2]) >= 256 and made.std() > 1  # not one colour


@pytest.mark.parametrize("example", FOR_COMFYUI, ids=lambda path: path.name)
def test_an_example_for_comfyui_says_which_nodes_are_not_here(run, example: Path) -> None:
    code, pictures, errors = run(example)
    assert (code, pictures) == (2, [])
    unknown = [re.fullmatch(r"Node .+ is of the unknown kind (\w+); .+", line) for line in errors]
    kinds = {one[1] for one in unknown if one is not None}
    assert len(unknown) >= len(kinds) > 0 and None not in unknown
    assert not kinds & default_nodes().classes.keys()


def test_the_picture_shows_what_the_command_asks_for(run) -> None:
    prompt = "prompt=a large yellow circle in the center on a purple background"
    code, pictures, errors = run(WORKFLOWS / "text_to_image.json", "--set", prompt)
    assert code == 0, errors
    found = reading(pictures[0])
    assert (found.background, found.color, found.place) == ("purple", "yellow", "center")


def test_a_picture_is_its_own_recipe(run) -> None:
    workflow = WORKFLOWS / "text_to_image.json"
    _, first, _ = run(workflow, "--set", "Stage C.seed=7", "--set", "prompt=a red ring", *QUICK)
    code, again, errors = run(first[0])
    assert code == 0, errors
    assert np.array_equal(pixels(first[0]), pixels(again[0])) and first[0] != again[0]
    # The canvas sees what made the picture, not what the file said before.
    with Image.open(first[0]) as picture:
        nodes = {node["id"]: node for node in json.loads(picture.text["workflow"])["nodes"]}
    titles = {node.get("title"): node for node in nodes.values()}
    assert titles["prompt"]["widgets_values"][0] == "a red ring"
    assert titles["Stage C"]["widgets_values"][0] == 7


def test_any_size_and_batch(run) -> None:
    size = ["--set", "Size.width=200", "--set", "Size.height=130", "--set", "Size.batch_size=2"]
    steps = ["--set", "Stage C.steps=3", "--set", "Stage B.steps=2"]
    code, pictures, errors = run(WORKFLOWS / "text_to_image.json", *size, *steps)
    assert code == 0, errors
    assert [pixels(path).shape for path in pictures] == [(130, 200, 3)] * 2


def test_examples_use_our_nodes_and_known_ones() -> None:
    nodes = default_nodes()
    used = set()
    for path in HOSTED:
        prompt = load_graph(path, nodes).prompt
        used |= {node["class_type"] for node in prompt.values()}
    assert used <= nodes.classes.keys()
    assert {"WuerstchenStageCSampler", "WuerstchenImageEncode"} <= used
    assert NODE_CLASS_MAPPINGS.keys() <= nodes.classes.keys()


class _Bomb:
    def __reduce__(self):
        return Path.touch, (Path("exploded"),)


def _empty(path: Path) -> None:
    path.touch()


def _truncated(path: Path) -> None:
    save_file({"projection.weight": torch.zeros(64, 16, 1, 1)}, path)
    path.write_bytes(path.read_bytes()[:-500])


def _text(path: Path) -> None:
    path.write_text("these are not the weights you are looking for")


def _code(path: Path) -> None:
    path.write_bytes(pickle.dumps({"state_dict": _Bomb()}))


def _code_in_a_checkpoint(path: Path) -> None:
    torch.save({"state_dict": _Bomb()}, path)


def _stable_cascade(path: Path) -> None:
    names = ("clip_txt_mapper", "clip_txt_pooled_mapper", "clip_img_mapper")
    tensors = {f"{name}.weight": torch.zeros(8, 4) for name in names}
    save_file({**tensors, "down_blocks.0.0.depthwise.weight": torch.zeros(8, 1, 3, 3)}, path)


BROKEN = {
    "empty.safetensors": _empty,
    "truncated.safetensors": _truncated,
    "text.safetensors": _text,
    "code.pt": _code,
    "code_in_a_checkpoint.pt": _code_in_a_checkpoint,
    "cascade.safetensors": _stable_cascade,
}

# Node -> the input of a node that can read its output, to have a graph around the loader.
LOADERS = {
    "WuerstchenLoadStageC": ("WuerstchenStageCSampler", "stage_c"),
    "WuerstchenLoadStageB": ("WuerstchenStageBSampler", "stage_b"),
    "WuerstchenLoadStageA": ("WuerstchenStageADecode", "stage_a"),
    "WuerstchenLoadImageEncoder": ("WuerstchenImageEncode", "image_encoder"),
    "WuerstchenLoadTextEncoder": ("WuerstchenTextEncode", "text_encoder"),
    "WuerstchenLoadPipeline": ("WuerstchenStageADecode", "stage_a"),
}


def graph_around(loader: str, name: str) -> dict[str, Any]:
    """The text-to-image example with one part from another loader, or another folder."""
    prompt = load_graph(WORKFLOWS / "text_to_image.json", default_nodes()).prompt
    pipeline = next(n for n in prompt.values() if n["class_type"] == "WuerstchenLoadPipeline")
    if loader == "WuerstchenLoadPipeline":
        pipeline["inputs"]["folder"] = name
        return prompt
    prompt["new"] = {"class_type": loader, "inputs": {"name": name, "dtype": "float32"}}
    reader, socket = LOADERS[loader]
    if reader == "WuerstchenImageEncode":
        prompt["picture"] = {"class_type": "LoadImage", "inputs": {"image": "example.png"}}
        prompt["encode"] = {"class_type": reader, "inputs": {"pixels": ["picture", 0]}}
        sampler = "WuerstchenStageBSampler"
        next(n for n in prompt.values() if n["class_type"] == sampler)["inputs"][
            "stage_c_latent"
        ] = ["encode", 0]
    node = next(n for n in prompt.values() if n["class_type"] == reader)
    node["inputs"][socket] = ["new", 0]
    return prompt


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("loader", LOADERS)
def test_broken_weights_are_one_sentence_and_exit_code_2(
    run, tmp_path: Path, loader: str, broken: str
) -> None:
    folder = tmp_path / "weights" / "mine"
    folder.mkdir(parents=True)
    BROKEN[broken](folder / broken)
    whole_folder = loader in ("WuerstchenLoadPipeline", "WuerstchenLoadTextEncoder")
    name = "mine" if whole_folder else f"mine/{broken}"
    if loader == "WuerstchenLoadTextEncoder":
        name = "mine/prior"
    code, pictures, errors = run(graph_around(loader, name), "--models", str(tmp_path / "weights"))
    assert (code, pictures) == (2, [])
    assert len(errors) == 1 and "Traceback" not in errors[0]
    assert broken in errors[0] or "mine" in errors[0]
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("loader", LOADERS)
def test_a_missing_folder_is_told_with_what_there_is(run, loader: str) -> None:
    code, pictures, errors = run(graph_around(loader, "no-such-folder"))
    assert (code, pictures) == (2, [])
    assert len(errors) == 1 and "no-such-folder" in errors[0] and "wuerstchen-demo" in errors[0]


def test_importing_the_core_needs_nothing_of_a_host() -> None:
    """In a fresh interpreter: the core pulls in no ComfyUI, diffusers, transformers or server."""
    import subprocess

    code = (
        "import sys\n"
        "import comfyui_wuerstchen.wuerstchen_core.pipeline\n"
        "import comfyui_wuerstchen\n"
        "bad = {'comfy', 'folder_paths', 'diffusers', 'transformers', 'aiohttp', 'matplotlib'}\n"
        "ours = {m.split('.')[1] for m in sys.modules if m.startswith('comfyui_wuerstchen.')}\n"
        "print(sorted(bad & set(sys.modules)), 'host' in ours)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.split("\n")[0] == "[] False", result.stderr
