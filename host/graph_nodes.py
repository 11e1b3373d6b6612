"""The classes of a running graph's nodes, and what they say of themselves."""

from __future__ import annotations

import inspect
from typing import Any

from .declarations import Declaration, NodeRegistry
from .dynamic_graph import DynamicGraph
from .instances import Instances


class GraphNodes:
    """Reads each class once a run, because folders may change between runs."""

    def __init__(self, graph: DynamicGraph, registry: NodeRegistry, instances: Instances) -> None:
        self._graph = graph
        self._registry = registry
        self._instances = instances
        self._declarations: dict[str, Declaration] = {}
        self._urgencies: dict[str, int] = {}

    def knows(self, class_type: str) -> bool:
        return class_type in self._registry

    def class_of(self, node_id: str) -> Any:
        return self._registry[self._graph.get_node(node_id)["class_type"]]

    def instance(self, node_id: str) -> Any:
        class_type = self._graph.get_node(node_id)["class_type"]
        return self._instances.get(node_id, class_type, self._registry[class_type])

    def declaration(self, node_id: str) -> Declaration:
        class_type = self._graph.get_node(node_id)["class_type"]
        if class_type not in self._declarations:
            self._declarations[class_type] = Declaration(self._registry[class_type])
        return self._declarations[class_type]

    def is_output(self, node_id: str) -> bool:
        return getattr(self.class_of(node_id), "OUTPUT_NODE", False) is True

    def is_async(self, node_id: str) -> bool:
        node_class = self.class_of(node_id)
        return inspect.iscoroutinefunction(getattr(node_class, node_class.FUNCTION, None))

    def urgency(self, node_id: str) -> int:
        """Lower runs first: background nodes start at once, then pictures come out early."""
        class_type = self._graph.get_node(node_id)["class_type"]
        if class_type not in self._urgencies:
            rank = 2 * (not self.is_async(node_id)) + (not self.is_output(node_id))
            self._urgencies[class_type] = rank
        return self._urgencies[class_type]
