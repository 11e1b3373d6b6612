"""Which node may run next: inputs are pulled from the outputs on, lazy ones only when asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from .declarations import Declaration, is_link
from .dynamic_graph import DynamicGraph


class DependencyCycleError(ValueError):
    """The nodes left wait for each other."""


class Schedule:
    """Nodes that are needed and what each of them still waits for."""

    def __init__(
        self,
        graph: DynamicGraph,
        declaration: Callable[[str], Declaration],
        has_output: Callable[[str], bool],
    ) -> None:
        self._graph = graph
        self._declaration = declaration
        self._has_output = has_output
        self._waits_for: dict[str, set[str]] = {}
        self._held: set[str] = set()

    def add(self, node_id: str) -> None:
        """Adds the node and, unless their outputs are known, all that it needs."""
        waiting = [node_id]
        while waiting:
            current = waiting.pop()
            if current not in self._waits_for:
                self._waits_for[current] = set()
                waiting += self._need(current, self._eager_origins(current))

    def require(self, node_id: str, origins: Iterable[str]) -> None:
        """Lets a node wait for more nodes: a lazy input it asked for, or what it expanded into."""
        for origin in self._need(node_id, origins):
            self.add(origin)

    def _need(self, node_id: str, origins: Iterable[str]) -> list[str]:
        needed = [origin for origin in origins if not self._has_output(origin)]
        self._waits_for[node_id].update(needed)
        return needed

    def _eager_origins(self, node_id: str) -> list[str]:
        declaration = self._declaration(node_id)
        origins = []
        for name, value in self._graph.get_node(node_id)["inputs"].items():
            spec = declaration.get(name)
            options = spec.options if spec else {}
            if is_link(value) and not options.get("lazy") and not options.get("rawLink"):
                origins.append(value[0])
        return origins

    def ready(self) -> list[str]:
        """The nodes that can run now, in the order in which they were added."""
        nodes = [n for n, left in self._waits_for.items() if not left and n not in self._held]
        if not nodes and self._waits_for and not self._held:
            stuck = ", ".join(sorted(self._waits_for))
            raise DependencyCycleError(f"these nodes wait for each other: {stuck}")
        return nodes

    def hold(self, node_id: str) -> None:
        """The node runs in the background."""
        self._held.add(node_id)

    def release(self, node_id: str) -> None:
        self._held.discard(node_id)

    def finish(self, node_id: str) -> None:
        del self._waits_for[node_id]
        for left in self._waits_for.values():
            left.discard(node_id)

    def __bool__(self) -> bool:
        return bool(self._waits_for)
