"""Imports point one way: host -> nodes -> wuerstchen_core."""

import ast
from pathlib import Path

import pytest

from .paths import ROOT

FORBIDDEN = {
    "wuerstchen_core": {"comfy", "folder_paths", "diffusers", "aiohttp", "nodes", "host"},
    "nodes": {"comfy", "folder_paths", "diffusers", "aiohttp", "host"},
    "host": {"comfy", "folder_paths", "diffusers"},
}
# The seam and the bridges to ComfyUI; and transformers is the text encoder's alone.
COMFYUI = {"comfy", "folder_paths"}
SEAMS = ("nodes/runtime.py", "nodes/native/")
# Nodes that exist only inside ComfyUI, where tests/comfyui looks at them.
NATIVE = {
    "WuerstchenCLIP",
    "WuerstchenReferenceSampler",
    "WuerstchenSigmas",
    "WuerstchenStageAVAE",
    "WuerstchenStageBConditioning",
    "WuerstchenStageBModel",
    "WuerstchenStageCModel",
}
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
        wrong = imported(path) & FORBIDDEN[room]
        if name.startswith(SEAMS):
            wrong -= COMFYUI
        assert not wrong, (name, wrong)
        if room == "wuerstchen_core" and name not in TRANSFORMERS:
            assert "transformers" not in imported(path), name


def test_every_node_has_a_help_page() -> None:
    from comfyui_wuerstchen.nodes import NODE_CLASS_MAPPINGS

    pages = {path.stem for path in (ROOT / "web" / "docs").glob("*.md")}
    assert pages == NODE_CLASS_MAPPINGS.keys() | NATIVE
