"""The workflows that packs bring along, for the canvas's template dialog."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..registry import Nodes
from ..workflow_convert import VIRTUAL
from ..workflow_graph import GraphFileError, read_canvases
from .packs import Pack

logger = logging.getLogger(__name__)

CATEGORY = "Würstchen"
FIRST = "text_to_image"
THUMBNAIL = ".jpg"
SUFFIXES = frozenset({".json", ".jpg", ".jpeg", ".png", ".webp"})


def template_names(pack: Pack) -> list[str]:
    return sorted(path.stem for path in _files(pack) if path.suffix == ".json")


def find_template(pack: Pack, file_name: str) -> Path | None:
    """A workflow or its thumbnail."""
    return next((path for path in _files(pack) if path.name == file_name), None)


def template_index(pack: Pack, nodes: Nodes) -> list[dict[str, Any]]:
    """The dialog's one category of its own, with those workflows of `pack` that run here."""
    workflows = [path for path in _files(pack) if path.suffix == ".json" and runs(path, nodes)]
    workflows.sort(key=lambda path: (path.stem != FIRST, path.stem))
    return [
        {
            # The dialog looks for these at /templates, and for all others by their pack.
            "moduleName": "default",
            "title": CATEGORY,
            "type": "image",
            "isEssential": True,
            "templates": [_entry(path) for path in workflows],
        }
    ]


def runs(workflow: Path, nodes: Nodes) -> bool:
    """Whether `nodes` has all that the workflow and its subgraphs are made of; some examples use
    nodes that only ComfyUI has."""
    try:
        root, subgraphs = read_canvases(json.loads(workflow.read_text(encoding="utf-8")))
    except (OSError, ValueError, GraphFileError) as error:
        logger.warning("the template '%s' is left out: %s", workflow.stem, error)
        return False
    used = {node.type for canvas in (root, *subgraphs.values()) for node in canvas.nodes.values()}
    return used <= nodes.classes.keys() | subgraphs.keys() | VIRTUAL


def _files(pack: Pack) -> Iterator[Path]:
    return (
        path
        for folder in pack.examples
        for path in folder.iterdir()
        if path.suffix in SUFFIXES and path.is_file()
    )


def _entry(path: Path) -> dict[str, Any]:
    return {
        "name": path.stem,
        "title": path.stem.replace("_", " ").capitalize(),
        "description": _description(path),
        "mediaType": "image",
        "mediaSubtype": THUMBNAIL.removeprefix("."),
        "models": [f"Würstchen {'v1' if path.stem.startswith('v1_') else 'v2'}"],
        "openSource": True,
    }


def _description(path: Path) -> str:
    """The text of the workflow's first note, below the note's heading."""
    try:
        nodes = json.loads(path.read_text(encoding="utf-8"))["nodes"]
        notes = (node["widgets_values"][0] for node in nodes if node["type"] == "MarkdownNote")
        _, _, text = next(notes, "").partition("\n\n")
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        logger.warning("the template '%s' cannot be described: %s", path.stem, error)
        return ""
    return " ".join(text.split())
