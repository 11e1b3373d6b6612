"""Reading a graph from a file: a prompt, a canvas workflow, or a picture that carries either."""

from __future__ import annotations

import copy
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from .declarations import Prompt, is_link, wrapped
from .registry import Nodes
from .workflow_convert import Converted, convert_workflow
from .workflow_graph import GraphFileError
from .workflow_widgets import WidgetValue

logger = logging.getLogger(__name__)

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
# What Pillow raises for a picture that is broken or too large.
UNREADABLE_PICTURE = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)


@dataclass
class GraphFile:
    """A graph ready to be validated. `workflow` is kept so that saved pictures carry it on."""

    prompt: Prompt
    workflow: dict[str, Any] | None = None
    _values: dict[tuple[str, str], WidgetValue] = field(default_factory=dict)

    def set(self, node_id: str, input_name: str, value: Any) -> None:
        """Changes a value in the prompt and, where the workflow holds it, there too."""
        self.prompt[node_id]["inputs"][input_name] = wrapped(value)
        if (node_id, input_name) in self._values:
            self._values[node_id, input_name].write(value)

    @property
    def extra_data(self) -> dict[str, Any]:
        """What a run needs so that saved files carry the workflow."""
        return {"extra_pnginfo": {"workflow": self.workflow}} if self.workflow else {}


def load_graph(path: Path, nodes: Nodes) -> GraphFile:
    """Reads `path`; raises `GraphFileError` with one sentence for anything that is not a graph."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise GraphFileError(f"Cannot read '{path}': {error.strerror or error}.") from error
    if data.startswith(PNG_MAGIC):
        return _from_png(path, nodes)
    try:
        content = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise GraphFileError(
            f"'{path}' is neither JSON nor a PNG; give a graph saved on the canvas "
            f"or a picture made by one ({error})."
        ) from error
    return graph_from_json(content, str(path), nodes)


def graph_from_json(content: Any, name: str, nodes: Nodes) -> GraphFile:
    """A graph from parsed JSON: a workflow, a prompt, or the body of a `/prompt` request."""
    if isinstance(content, dict) and isinstance(content.get("nodes"), list):
        return _from_parts(None, content, nodes)
    if isinstance(content, dict) and _is_prompt(content.get("prompt")):
        return _from_parts(content["prompt"], _workflow_of(content), nodes)
    if _is_prompt(content):
        return _from_parts(content, None, nodes)
    raise GraphFileError(
        f"'{name}' is JSON but not a graph; expected a workflow saved on the canvas, or a prompt "
        'like {"1": {"class_type": …, "inputs": {…}}}.'
    )


def _from_png(path: Path, nodes: Nodes) -> GraphFile:
    try:
        with Image.open(path, formats=("PNG",)) as picture:
            picture.load()  # text chunks may stand behind the pixels
            text = getattr(picture, "text", {})
        parts = {key: json.loads(text[key]) for key in ("prompt", "workflow") if key in text}
    except (*UNREADABLE_PICTURE, RecursionError) as error:
        raise GraphFileError(f"'{path}' is a damaged PNG ({error}).") from error
    prompt, workflow = parts.get("prompt"), parts.get("workflow")
    workflow = workflow if isinstance(workflow, dict) and "nodes" in workflow else None
    if not _is_prompt(prompt) and workflow is None:
        raise GraphFileError(
            f"'{path}' carries no graph; use a PNG that Save Image wrote, unchanged since."
        )
    return _from_parts(prompt if _is_prompt(prompt) else None, workflow, nodes)


def _from_parts(prompt: Prompt | None, workflow: dict[str, Any] | None, nodes: Nodes) -> GraphFile:
    if prompt is None:
        assert workflow is not None
        converted = convert_workflow(workflow, nodes)
        _require_nodes(converted)
        return GraphFile(converted.prompt, workflow, converted.values)
    prompt = copy.deepcopy(prompt)
    for node in prompt.values():
        node.setdefault("inputs", {})
    if workflow is None:
        return GraphFile(prompt)
    try:
        values = _values_of(prompt, convert_workflow(workflow, nodes))
    except GraphFileError as error:
        # The prompt is what runs; the workflow beside it is only carried on.
        logger.warning("The workflow beside the prompt is carried on unchanged: %s", error)
        values = {}
    return GraphFile(prompt, workflow, values)


def _values_of(prompt: Prompt, converted: Converted) -> dict[tuple[str, str], WidgetValue]:
    """The workflow's places for values of the prompt, where both speak of the same node."""
    return {
        (node_id, name): value
        for (node_id, name), value in converted.values.items()
        if node_id in prompt
        and prompt[node_id]["class_type"] == converted.prompt[node_id]["class_type"]
        and not is_link(prompt[node_id]["inputs"].get(name))
    }


def _require_nodes(converted: Converted) -> None:
    if not converted.prompt:
        raise GraphFileError(
            "The workflow has no node that runs: all are notes, muted or bypassed."
        )


def _is_prompt(content: Any) -> bool:
    return (
        isinstance(content, dict)
        and bool(content)
        and all(
            isinstance(node, dict)
            and isinstance(node.get("class_type"), str)
            and isinstance(node.get("inputs", {}), dict)
            for node in content.values()
        )
    )


def _workflow_of(body: dict[str, Any]) -> dict[str, Any] | None:
    extra = body.get("extra_data") or {}
    workflow = (extra.get("extra_pnginfo") or {}).get("workflow")
    return workflow if isinstance(workflow, dict) and "nodes" in workflow else None
