"""What the canvas learns about each node: ComfyUI's `/object_info`."""

from __future__ import annotations

import json
import logging
from typing import Any

from ...nodes.runtime import use
from ..folders import Folders, HostSurroundings
from ..registry import Nodes

logger = logging.getLogger(__name__)

# Present only where the class sets them to something true, or sets them at all.
FLAGS = {"deprecated": "DEPRECATED", "experimental": "EXPERIMENTAL", "dev_only": "DEV_ONLY"}
EXTRAS = {
    "output_tooltips": "OUTPUT_TOOLTIPS",
    "api_node": "API_NODE",
    "essentials_category": "ESSENTIALS_CATEGORY",
}


def object_info(nodes: Nodes, folders: Folders, only: str | None = None) -> dict[str, Any]:
    """The description of every node, or of the one with the id `only` if there is such a node.

    Lists folders, so it takes a moment. A class that cannot tell is left out with a warning.
    """
    ids = nodes.classes if only is None else [only] if only in nodes.classes else []
    found = {}
    with use(HostSurroundings(folders)):
        for node_id in ids:
            try:
                info = _describe(node_id, nodes)
                json.dumps(info, allow_nan=False)
            except Exception as error:
                logger.warning("node %s is left out, it cannot be described: %s", node_id, error)
            else:
                found[node_id] = info
    return found


def _describe(node_id: str, nodes: Nodes) -> dict[str, Any]:
    """Raises what the class raises, also AttributeError where it lacks a part."""
    node: Any = nodes.classes[node_id]
    inputs = node.INPUT_TYPES()
    outputs = node.RETURN_TYPES
    return {
        "input": inputs,
        "input_order": {section: list(names) for section, names in inputs.items()},
        "is_input_list": getattr(node, "INPUT_IS_LIST", False),
        "output": outputs,
        "output_is_list": getattr(node, "OUTPUT_IS_LIST", [False] * len(outputs)),
        "output_name": getattr(node, "RETURN_NAMES", outputs),
        "name": node_id,
        "display_name": nodes.display_name(node_id),
        "description": getattr(node, "DESCRIPTION", ""),
        "python_module": nodes.module(node_id),
        "category": getattr(node, "CATEGORY", "sd"),
        "output_node": bool(getattr(node, "OUTPUT_NODE", False)),
        "has_intermediate_output": bool(getattr(node, "HAS_INTERMEDIATE_OUTPUT", False)),
        "search_aliases": getattr(node, "SEARCH_ALIASES", []),
        **{key: True for key, name in FLAGS.items() if getattr(node, name, False)},
        **{key: getattr(node, name) for key, name in EXTRAS.items() if hasattr(node, name)},
    }
