"""Signatures: two nodes with the same signature give the same outputs."""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

from .declarations import is_link, unwrapped
from .dynamic_graph import DynamicGraph
from .graph_nodes import GraphNodes

logger = logging.getLogger(__name__)


class Signatures:
    """The signatures of one run. What cannot be compared gets one that never comes again."""

    def __init__(self, graph: DynamicGraph, nodes: GraphNodes) -> None:
        self._graph = graph
        self._nodes = nodes
        self._known: dict[str, str] = {}

    def of(self, node_id: str) -> str:
        """The signature of a node that `prepare` has seen."""
        return self._known[node_id]

    def is_signed(self, node_id: str) -> bool:
        return node_id in self._known

    async def prepare(self, node_id: str) -> None:
        """Signs the node and its ancestors, ancestors first."""
        opened = {node_id}
        path = [] if node_id in self._known else [(node_id, self._origins(node_id))]
        while path:
            current, origins = path[-1]
            fresh = next((o for o in origins if o not in self._known and o not in opened), None)
            if fresh is None:
                self._known[current] = await self._sign(current)
                path.pop()
            else:
                opened.add(fresh)
                path.append((fresh, self._origins(fresh)))

    def _origins(self, node_id: str) -> Iterator[str]:
        inputs = self._graph.get_node(node_id)["inputs"]
        return (v[0] for v in inputs.values() if is_link(v) and self._graph.has_node(v[0]))

    async def _sign(self, node_id: str) -> str:
        node = self._graph.get_node(node_id)
        node_class = self._nodes.class_of(node_id)
        hidden = self._nodes.declaration(node_id).hidden.values()
        is_personal = getattr(node_class, "NOT_IDEMPOTENT", False) or "UNIQUE_ID" in hidden
        inputs = {
            # On a circle an ancestor has no signature yet; such a node never runs.
            name: {"from": self._known.get(value[0]) or _never(), "slot": int(value[1])}
            if is_link(value)
            else {"value": unwrapped(value)}
            for name, value in node["inputs"].items()
        }
        parts = [
            node["class_type"],
            node_id if is_personal else None,
            await self._changed(node_id, node_class),
            inputs,
        ]
        try:
            text = json.dumps(parts, sort_keys=True, allow_nan=False)
        except (TypeError, ValueError):  # NaN or a value that JSON cannot hold
            return _never()
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    async def _changed(self, node_id: str, node_class: type) -> Any:
        """What the class's own `IS_CHANGED` says; linked inputs are None to it."""
        ask = getattr(node_class, "IS_CHANGED", None)
        if ask is None:
            return None
        declaration = self._nodes.declaration(node_id)
        inputs = {
            name: None if is_link(value) else unwrapped(value)
            for name, value in self._graph.get_node(node_id)["inputs"].items()
            if is_link(value) or declaration.get(name) is not None
        }
        try:
            answer = ask(**inputs)
            answer = await answer if inspect.isawaitable(answer) else answer
        except Exception as error:
            logger.warning("node %s: IS_CHANGED failed (%s); it will run again", node_id, error)
            return float("nan")
        return answer.hex() if isinstance(answer, bytes) else answer


def _never() -> str:
    return f"never-{uuid4().hex}"
