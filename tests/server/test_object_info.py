"""What the canvas learns of nodes, in the form of ComfyUI's `/object_info`."""

import json
from pathlib import Path
from typing import Any

import pytest

from comfyui_wuerstchen.host.folders import Folders
from comfyui_wuerstchen.host.registry import Nodes, default_nodes
from comfyui_wuerstchen.host.server.object_info import object_info
from comfyui_wuerstchen.nodes import NODE_CLASS_MAPPINGS
from comfyui_wuerstchen.nodes.runtime import surroundings

from .conftest import Running


class Everything:
    DESCRIPTION = "A node with all there is."
    CATEGORY = "toys/all"
    RETURN_TYPES = ("IMAGE", ["a", "b"])
    RETURN_NAMES = ("picture", "choice")
    OUTPUT_IS_LIST = (True, False)
    OUTPUT_TOOLTIPS = ("first", "second")
    INPUT_IS_LIST = True
    OUTPUT_NODE = True
    HAS_INTERMEDIATE_OUTPUT = True
    SEARCH_ALIASES = ("all", "everything")
    DEPRECATED = True
    EXPERIMENTAL = True
    DEV_ONLY = True
    API_NODE = False
    ESSENTIALS_CATEGORY = "Basics"
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {"seed": ("INT", {"default": 0, "max": 2**64 - 1})},
            "optional": {"file": (["x"], {"tooltip": "A file."})},
            "hidden": {"unique_id": "UNIQUE_ID"},
        }


class Little:
    RETURN_TYPES = ("INT", "FLOAT")
    FUNCTION = "run"
    DEPRECATED = False

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    (tmp_path / "input").mkdir()
    return Folders(tmp_path / "input", tmp_path / "output", tmp_path / "temp")


def as_sent(info: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(info, allow_nan=False))


def test_everything_that_a_class_may_say(folders: Folders) -> None:
    nodes = Nodes({"All": Everything}, {"All": "All of it"}, {"All": "custom_nodes.toys"})
    assert as_sent(object_info(nodes, folders)["All"]) == {
        "input": {
            "required": {"seed": ["INT", {"default": 0, "max": 18446744073709551615}]},
            "optional": {"file": [["x"], {"tooltip": "A file."}]},
            "hidden": {"unique_id": "UNIQUE_ID"},
        },
        "input_order": {"required": ["seed"], "optional": ["file"], "hidden": ["unique_id"]},
        "is_input_list": True,
        "output": ["IMAGE", ["a", "b"]],
        "output_is_list": [True, False],
        "output_name": ["picture", "choice"],
        "output_tooltips": ["first", "second"],
        "name": "All",
        "display_name": "All of it",
        "description": "A node with all there is.",
        "python_module": "custom_nodes.toys",
        "category": "toys/all",
        "output_node": True,
        "has_intermediate_output": True,
        "deprecated": True,
        "experimental": True,
        "dev_only": True,
        "api_node": False,
        "search_aliases": ["all", "everything"],
        "essentials_category": "Basics",
    }


def test_what_a_class_leaves_out_has_comfyuis_defaults(folders: Folders) -> None:
    assert as_sent(object_info(Nodes({"Little": Little}), folders)["Little"]) == {
        "input": {"required": {}},
        "input_order": {"required": []},
        "is_input_list": False,
        "output": ["INT", "FLOAT"],
        "output_is_list": [False, False],
        "output_name": ["INT", "FLOAT"],
        "name": "Little",
        "display_name": "Little",
        "description": "",
        "python_module": "nodes",
        "category": "sd",
        "output_node": False,
        "has_intermediate_output": False,
        "search_aliases": [],
    }


def declares(inputs: Any) -> type:
    return type("Odd", (Little,), {"INPUT_TYPES": classmethod(lambda cls: inputs())})


@pytest.mark.parametrize(
    "odd",
    [
        declares(lambda: 1 / 0),
        declares(lambda: {"required": {"x": ("FLOAT", {"max": float("inf")})}}),
        declares(lambda: {"required": {"x": ("FLOAT", {"default": float("nan")})}}),
        declares(lambda: {"required": {"x": ("ANY", {"default": object()})}}),
        declares(lambda: None),
        type("NoOutputs", (), {"INPUT_TYPES": classmethod(lambda cls: {})}),
    ],
)
def test_a_class_that_cannot_tell_is_left_out_and_named(
    folders: Folders, caplog: pytest.LogCaptureFixture, odd: type
) -> None:
    found = object_info(Nodes({"Odd": odd, "Little": Little}), folders)
    assert list(found) == ["Little"]
    assert "node Odd is left out" in caplog.text


def test_choices_are_those_of_this_hosts_folders(folders: Folders) -> None:
    lists = declares(
        lambda: {"required": {"file": ([p.name for p in surroundings().input_dir().iterdir()],)}}
    )
    (folders.input / "there.png").touch()
    found = object_info(Nodes({"Lists": lists}), folders)["Lists"]
    assert found["input"]["required"]["file"] == (["there.png"],)


def test_the_projects_nodes_and_the_stock_ones(folders: Folders) -> None:
    nodes = default_nodes()
    found = object_info(nodes, folders)
    assert found.keys() == nodes.classes.keys()
    modules = {key: one["python_module"] for key, one in found.items()}
    ours = {key for key, module in modules.items() if module != "nodes"}
    assert ours == NODE_CLASS_MAPPINGS.keys()
    assert {modules[key] for key in ours} == {"custom_nodes.comfyui-wuerstchen"}


async def test_the_routes(real: Running) -> None:
    everything = await real.get("/object_info")
    assert everything == await real.get("/api/object_info")
    assert "wuerstchen-demo" in json.dumps(everything["WuerstchenLoadPipeline"]["input"])
    one = await real.get("/api/object_info/SaveImage")
    assert one == {"SaveImage": everything["SaveImage"]}
    assert await real.get("/object_info/Nothing") == {}
