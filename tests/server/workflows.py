"""Example workflows as the API prompts that the canvas would send."""

from pathlib import Path
from typing import Any

from comfyui_wuerstchen.host.folders import Folders, HostSurroundings
from comfyui_wuerstchen.host.graph_file import load_graph
from comfyui_wuerstchen.host.registry import default_nodes
from comfyui_wuerstchen.nodes.runtime import use


def api_prompt(workflow: Path, **values: Any) -> dict[str, Any]:
    """The prompt of a saved workflow; `values` replace every input of that name."""
    nowhere = Folders(workflow.parent, workflow.parent, workflow.parent)
    with use(HostSurroundings(nowhere)):
        prompt = load_graph(workflow, default_nodes()).prompt
    for node in prompt.values():
        node["inputs"].update({k: v for k, v in values.items() if k in node["inputs"]})
    return prompt
