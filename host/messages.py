"""The messages that a run sends, in the form that ComfyUI's clients know."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from .dynamic_graph import DynamicGraph
from .plain import plain

# `on_event(type, data)`. All data is plain JSON, except `preview`, whose "image" is a PIL image.
# Other messages share parts of it, so it must not be changed below its first level.
OnEvent = Callable[[str, dict[str, Any]], None]


class Messages:
    """Speaks for one run and keeps its cumulative `progress_state`."""

    def __init__(self, prompt_id: str, graph: DynamicGraph, on_event: OnEvent) -> None:
        self._prompt_id = prompt_id
        self._graph = graph
        self._on_event = on_event
        self._progress: dict[str, dict[str, Any]] = {}

    def send(self, kind: str, **data: Any) -> None:
        self._on_event(kind, {**plain(data), "prompt_id": self._prompt_id})

    def send_timed(self, kind: str, **data: Any) -> None:
        self.send(kind, **data, timestamp=int(time.time() * 1000))

    def meta(self, node_id: str) -> dict[str, Any]:
        return {
            "node_id": node_id,
            "display_node": self._graph.get_display_node_id(node_id),
            "parent_node": self._graph.get_parent_node_id(node_id),
            "real_node_id": self._graph.get_real_node_id(node_id),
        }

    def started(self, node_id: str) -> None:
        self._set_progress(node_id, 0.0, 1.0, "running")
        shown = self._graph.get_display_node_id(node_id)
        self.send("executing", node=node_id, display_node=shown)

    def stepped(self, node_id: str, value: float, maximum: float, preview: Any) -> None:
        self._set_progress(node_id, value, maximum, "running")
        self.send("progress", value=value, max=maximum, node=node_id)
        if preview is not None:
            about = plain(self._place(node_id))
            self._on_event("preview", {**about, "image": preview, "prompt_id": self._prompt_id})

    def executed(self, node_id: str, ui: dict[str, Any] | None) -> None:
        shown = self._graph.get_display_node_id(node_id)
        self.send("executed", node=node_id, display_node=shown, output=ui)

    def finished(self, node_id: str) -> None:
        maximum = self._progress.get(node_id, {"max": 1.0})["max"]
        self._set_progress(node_id, maximum, maximum, "finished")

    def _set_progress(self, node_id: str, value: float, maximum: float, state: str) -> None:
        about = {"value": value, "max": maximum, "state": state, **self._place(node_id)}
        self._progress[node_id] = plain({**about, "prompt_id": self._prompt_id})
        # All nodes in each message, as in ComfyUI; made plain one by one, so that it costs little.
        nodes = dict(self._progress)
        self._on_event("progress_state", {"nodes": nodes, "prompt_id": self._prompt_id})

    def _place(self, node_id: str) -> dict[str, Any]:
        return {
            "node_id": node_id,
            "display_node_id": self._graph.get_display_node_id(node_id),
            "parent_node_id": self._graph.get_parent_node_id(node_id),
            "real_node_id": self._graph.get_real_node_id(node_id),
        }
