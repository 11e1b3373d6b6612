"""Runs inside ComfyUI's own Python: describes its nodes and calls them on given inputs.

`comfyui_runner.py CHECKOUT FOLDER` reads FOLDER/calls.pt, a list of (node id, inputs), and leaves
FOLDER/answers.pt, for each call a list of outputs or an error's words, and FOLDER/nodes.json.
FOLDER is ComfyUI's input folder too, and FOLDER/output its output folder.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import torch

EXTRAS = ("images", "latent", "mask", "rebatch", "preview_any", "primitive")


def load_nodes(checkout: Path, folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    sys.path.insert(0, str(checkout))
    sys.argv = ["main.py", "--cpu"]
    import comfy.options  # pyright: ignore[reportMissingImports]

    comfy.options.enable_args_parsing()
    import folder_paths  # pyright: ignore[reportMissingImports]

    import nodes  # pyright: ignore[reportMissingImports]

    folder_paths.set_input_directory(str(folder))
    folder_paths.set_output_directory(str(folder / "output"))
    for name in EXTRAS:
        path = checkout / "comfy_extras" / f"nodes_{name}.py"
        asyncio.run(nodes.load_custom_node(str(path), module_parent="comfy_extras"))
    return nodes.NODE_CLASS_MAPPINGS, nodes.NODE_DISPLAY_NAME_MAPPINGS


def describe(node: Any, display_name: str | None) -> dict[str, Any]:
    if hasattr(node, "GET_NODE_INFO_V1"):
        return node.GET_NODE_INFO_V1()
    inputs = node.INPUT_TYPES()
    return {
        "input": inputs,
        "input_order": {section: list(names) for section, names in inputs.items()},
        "is_input_list": getattr(node, "INPUT_IS_LIST", False),
        "output": node.RETURN_TYPES,
        "output_is_list": getattr(node, "OUTPUT_IS_LIST", [False] * len(node.RETURN_TYPES)),
        "output_name": getattr(node, "RETURN_NAMES", node.RETURN_TYPES),
        "display_name": display_name,
        "category": node.CATEGORY,
        "output_node": getattr(node, "OUTPUT_NODE", False),
        "deprecated": getattr(node, "DEPRECATED", False),
        "search_aliases": getattr(node, "SEARCH_ALIASES", []),
        "essentials_category": getattr(node, "ESSENTIALS_CATEGORY", None),
    }


def call(node: Any, inputs: dict[str, Any]) -> list[Any] | str:
    try:
        answer = getattr(node(), node.FUNCTION)(**inputs)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    if isinstance(answer, dict):
        return list(answer["result"])
    return list(getattr(answer, "result", answer))


def main() -> None:
    checkout, folder = Path(sys.argv[1]), Path(sys.argv[2])
    classes, names = load_nodes(checkout, folder)
    described = {node_id: describe(node, names.get(node_id)) for node_id, node in classes.items()}
    (folder / "nodes.json").write_text(json.dumps(described), encoding="utf-8")
    calls = torch.load(folder / "calls.pt", weights_only=True)
    with torch.inference_mode():
        answers = [call(classes[node_id], inputs) for node_id, inputs in calls]
    torch.save(answers, folder / "answers.pt")


if __name__ == "__main__":
    main()
