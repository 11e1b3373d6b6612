"""Imports point one way: host -> nodes -> wuerstchen_core."""

import ast
import json
from pathlib import Path

import pytest

from .paths import ROOT

FORBIDDEN = {
    "wuerstchen_core": {"comfy", "folder_paths", "diffusers", "aiohttp", "nodes", "host"},
    "nodes": {"comfy", "folder_paths", "diffusers", "aiohttp", "host"},
    "host": {"comfy", "folder_paths", "diffusers"},
}
# The seam to ComfyUI; and transformers is the text encoder's alone.
EXCEPT = {("nodes/runtime.py", "comfy"), ("nodes/runtime.py", "folder_paths")}
TRANSFORMERS = {
    "wuerstchen_core/text_encoder.py",
    "wuerstchen_core/checkpoints/text.py",
    "wuerstchen_core/training/demo/text.py",
    "wuerstchen_core/training/demo/recipe.py",
}


def imported(path: Path) -> set[str]:
    """Top-level packages, and for relative imports beyond the room the room they reach."""
    names: set[str] = set()
    depth = len(path.relative_to(ROOT).parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.ImportFrom) and node.level == depth:
            names |= {(node.module or alias.name).split(".")[0] for alias in node.names}
    return names


@pytest.mark.parametrize("room", FORBIDDEN)
def test_no_room_imports_from_above(room: str) -> None:
    for path in (ROOT / room).rglob("*.py"):
        name = path.relative_to(ROOT).as_posix()
        wrong = {n for n in imported(path) & FORBIDDEN[room] if (name, n) not in EXCEPT}
        assert not wrong, (name, wrong)
        if room == "wuerstchen_core" and name not in TRANSFORMERS:
            assert "transformers" not in imported(path), name


def test_every_node_has_a_help_page() -> None:
    from comfyui_wuerstchen.nodes import NODE_CLASS_MAPPINGS

    pages = {path.stem for path in (ROOT / "web" / "docs").glob("*.md")}
    assert pages == set(NODE_CLASS_MAPPINGS)


def test_the_english_locale_says_what_the_nodes_declare() -> None:
    from comfyui_wuerstchen.nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

    found = json.loads((ROOT / "locales" / "en" / "nodeDefs.json").read_text(encoding="utf-8"))
    assert found.keys() == NODE_CLASS_MAPPINGS.keys()
    for node_id, node in NODE_CLASS_MAPPINGS.items():
        said = found[node_id]
        assert said["display_name"] == NODE_DISPLAY_NAME_MAPPINGS[node_id]
        assert said["description"] == node.DESCRIPTION
        inputs = {k: v for group in node.INPUT_TYPES().values() for k, v in group.items()}
        assert {name: one["tooltip"] for name, one in said["inputs"].items()} == {
            name: options["tooltip"] for name, (_, options) in inputs.items()
        }
        assert [one["name"] for one in said["outputs"].values()] == list(node.RETURN_NAMES)
