"""Other people's packs of nodes: what loads, what is left out and why, and that theirs run."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from comfyui_wuerstchen.host.registry import Nodes
from comfyui_wuerstchen.host.server.assemble import ServeSettings
from comfyui_wuerstchen.host.server.custom_nodes import load_custom_nodes

from .conftest import graph, serving

DOUBLE = """
class Double:
    RETURN_TYPES = ("INT",)
    FUNCTION = "double"
    CATEGORY = "toys"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"number": ("INT", {"default": 1})}}

    def double(self, number):
        return (times_two(number),)
"""
TELL = """
class Tell:
    RETURN_TYPES = ()
    FUNCTION = "tell"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"number": ("INT", {"forceInput": True})}}

    def tell(self, number):
        return {"ui": {"text": [str(number)]}}
"""
MAPPINGS = """
NODE_CLASS_MAPPINGS = {"Double": Double, "Tell": Tell}
NODE_DISPLAY_NAME_MAPPINGS = {"Double": "Twice as much", "Unknown": "x"}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "custom_nodes").mkdir()
    return tmp_path / "custom_nodes"


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def write_doubling_pack(folder: Path, name: str = "doubling.pack") -> None:
    write(folder, f"{name}/inner/maths.py", "def times_two(number):\n    return 2 * number\n")
    write(folder, f"{name}/doubling.py", f"from .inner.maths import times_two\n{DOUBLE}")
    init = f'from .doubling import Double\nWEB_DIRECTORY = "./js"\n{TELL}{MAPPINGS}'
    write(folder, f"{name}/__init__.py", init)
    write(folder, f"{name}/js/entry.js", "export {}")


def test_a_folder_with_relative_imports_loads(folder: Path) -> None:
    write_doubling_pack(folder)
    nodes, packs = load_custom_nodes(folder, Nodes({}))
    assert list(nodes.classes) == ["Double", "Tell"]
    assert nodes.display_names == {"Double": "Twice as much"}
    assert nodes.module("Double") == "custom_nodes.doubling.pack"
    (pack,) = packs
    assert (pack.name, pack.folder) == ("doubling.pack", folder / "doubling.pack")
    assert pack.web == folder / "doubling.pack" / "js"


def test_a_single_file_loads(folder: Path) -> None:
    write(folder, "tell.py", f"{TELL}\nNODE_CLASS_MAPPINGS = {{'Tell': Tell}}\n")
    nodes, (pack,) = load_custom_nodes(folder, Nodes({}))
    assert (pack.name, pack.folder, pack.web) == ("tell", None, None)
    assert nodes.module("Tell") == "custom_nodes.tell"


def test_two_packs_may_have_modules_of_the_same_name(folder: Path) -> None:
    for name in ("one", "two"):
        write(folder, f"{name}/things.py", f"class Thing:\n    place = '{name}'\n")
        mapping = f"NODE_CLASS_MAPPINGS = {{'{name}': Thing}}"
        write(folder, f"{name}/__init__.py", f"from .things import Thing\n{mapping}\n")
    nodes, _ = load_custom_nodes(folder, Nodes({}))
    assert {key: node.place for key, node in nodes.classes.items()} == {"one": "one", "two": "two"}


def test_what_is_hidden_or_switched_off_is_not_run(folder: Path) -> None:
    for name in (".hidden", "off.disabled", "__pycache__"):
        write(folder, f"{name}/__init__.py", "raise SystemExit")
    write(folder, "off.py.disabled", "raise SystemExit")
    write(folder, "notes/readme.txt", "no code here")
    write(folder, "data.json", "{}")
    assert load_custom_nodes(folder, Nodes({})) == (Nodes({}), [])


def test_without_a_folder_there_is_nothing(tmp_path: Path) -> None:
    assert load_custom_nodes(tmp_path / "none", Nodes({})) == (Nodes({}), [])


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import comfy.utils", "they need ComfyUI's own package 'comfy'"),
        ("from folder_paths import base_path", "they need ComfyUI's own package 'folder_paths'"),
        (
            "import no_such_package.deep",
            "they need the Python package 'no_such_package', which is not installed",
        ),
        ("raise RuntimeError('first\\nsecond')", "they fail with RuntimeError: first"),
        ("def broken(:", "they fail with SyntaxError: invalid syntax (__init__.py, line 1)"),
        ("import sys; sys.exit(3)", "they fail with SystemExit: 3"),
        ("open(__file__ + '.x')", "No such file or directory: 'custom_nodes/bad/__init__.py.x'"),
        ("async def comfy_entrypoint(): ...", "they are of ComfyUI's V3 kind"),
        ("", "they have no NODE_CLASS_MAPPINGS"),
        ("NODE_CLASS_MAPPINGS = {'A': 1}", "they have no NODE_CLASS_MAPPINGS"),
    ],
)
def test_a_pack_that_cannot_load_is_named_and_the_rest_goes_on(
    folder: Path, caplog: pytest.LogCaptureFixture, code: str, reason: str
) -> None:
    write(folder, "bad/__init__.py", code)
    write_doubling_pack(folder, "good")
    nodes, packs = load_custom_nodes(folder, Nodes({}))
    assert [pack.name for pack in packs] == ["good"]
    assert "Double" in nodes.classes
    (record,) = [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert record.getMessage().startswith("custom nodes 'bad' are left out: ")
    assert reason in record.getMessage()
    assert "\n" not in record.getMessage()
    assert str(folder.parent) not in record.getMessage()


def test_a_node_that_exists_stays(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Double:
        pass

    write_doubling_pack(folder)
    before = Nodes({"Double": Double}, {"Double": "Ours"})
    nodes, _ = load_custom_nodes(folder, before)
    assert nodes.classes["Double"] is Double
    assert (nodes.display_name("Double"), nodes.module("Double")) == ("Ours", "nodes")
    assert "Tell" in nodes.classes
    assert "stay as they are: Double" in caplog.text


def test_our_own_pack_is_not_loaded_a_second_time(folder: Path) -> None:
    write(folder, "comfyui-wuerstchen/__init__.py", "raise SystemExit")
    assert load_custom_nodes(folder, Nodes({})) == (Nodes({}), [])


async def test_their_nodes_run(settings: ServeSettings) -> None:
    write_doubling_pack(settings.data / "custom_nodes")
    async with serving(replace(settings, custom_nodes=True)) as server:
        about = (await server.get("/object_info/Double"))["Double"]
        assert about["python_module"] == "custom_nodes.doubling.pack"
        assert "/extensions/doubling.pack/entry.js" in await server.get("/extensions")
        listener = await server.listen()
        prompt = graph(n1=("Double", {"number": 21}), n2=("Tell", {"number": ["1", 0]}))
        _, answer = await server.submit(prompt, client_id="tester")
        told = await listener.until("executed", prompt_id=answer["prompt_id"])
        assert told["output"] == {"text": ["42"]}


async def test_they_are_not_loaded_unasked(settings: ServeSettings) -> None:
    write_doubling_pack(settings.data / "custom_nodes")
    async with serving(settings) as server:
        assert await server.get("/object_info/Double") == {}
