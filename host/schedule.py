"""Which node may run next: inputs are pulled from the outputs on, lazy ones only when asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from heapq import heappop, heappush

from .declarations import InputSpec, is_link
from .dynamic_graph import DynamicGraph
from .graph_nodes import GraphNodes


def eager_links(
    graph: DynamicGraph, nodes: GraphNodes, node_id: str
) -> Iterator[tuple[InputSpec | None, str, int]]:
    """(input, origin, its slot) of what a node needs before it runs: all but lazy inputs."""
    declaration = nodes.declaration(node_id)
    for name, value in graph.get_node(node_id)["inputs"].items():
        if is_link(value):
            spec = declaration.get(name)
            options = spec.options if spec else {}
            if not options.get("lazy") and not options.get("rawLink"):
                yield spec, value[0], int(value[1])


class DependencyCycleError(ValueError):
    """The nodes left wait for each other."""


class Schedule:
    """Nodes that are needed and what each of them still waits for.

    The most urgent run first, of equal ones that which was added first.
    """

    def __init__(
        self,
        graph: DynamicGraph,
        nodes: GraphNodes,
        has_output: Callable[[str], bool],
    ) -> None:
        self._graph = graph
        self._nodes = nodes
        self._has_output = has_output
        self._waits_for: dict[str, set[str]] = {}
        self._needed_by: dict[str, list[str]] = {}
        self._ready: list[tuple[int, int, str]] = []  # a heap: urgency, when added, node
        self._places: dict[str, int] = {}
        self._taken: set[str] = set()

    def add(self, node_id: str) -> None:
        """Adds the node and, unless their outputs are known, all that it needs."""
        waiting = [node_id]
        while waiting:
            current = waiting.pop()
            if current not in self._waits_for:
                self._waits_for[current] = set()
                self._places[current] = len(self._places)
                waiting += self._need(current, self._eager_origins(current))
                self._offer(current)

    def require(self, node_id: str, origins: Iterable[str]) -> None:
        """Lets a node that was taken wait for more nodes: a lazy input it asked for, or what it
        expanded into."""
        for origin in self._need(node_id, origins):
            self.add(origin)

    def _need(self, node_id: str, origins: Iterable[str]) -> list[str]:
        waits_for = self._waits_for[node_id]
        needed = [origin for origin in origins if not self._has_output(origin)]
        for origin in needed:
            if origin not in waits_for:
                waits_for.add(origin)
                self._needed_by.setdefault(origin, []).append(node_id)
        return needed

    def _eager_origins(self, node_id: str) -> list[str]:
        return [origin for _, origin, _ in eager_links(self._graph, self._nodes, node_id)]

    def _offer(self, node_id: str) -> None:
        """Makes the node ready if it waits for nothing and nobody has taken it."""
        if node_id not in self._taken and not self._waits_for[node_id]:
            heappush(self._ready, self._ranked(node_id))

    def _ranked(self, node_id: str) -> tuple[int, int, str]:
        return self._nodes.urgency(node_id), self._places[node_id], node_id

    def take(self) -> str | None:
        """The node to run next; None while those taken must first be finished or released."""
        if self._ready:
            node_id = heappop(self._ready)[2]
            self._taken.add(node_id)
            return node_id
        if self._waits_for and not self._taken:
            stuck = ", ".join(sorted(self._waits_for))
            raise DependencyCycleError(f"these nodes wait for each other: {stuck}")
        return None

    def release(self, node_id: str) -> None:
        """Gives back a node that was taken and must run again, once it has what it waits for."""
        self._taken.discard(node_id)
        if node_id in self._waits_for:
            self._offer(node_id)

    def finish(self, node_id: str) -> None:
        del self._waits_for[node_id]
        self._taken.discard(node_id)
        for other in self._needed_by.pop(node_id, ()):
            self._waits_for[other].discard(node_id)
            self._offer(other)

    def upcoming(self) -> Iterator[str]:
        """The nodes in the order in which they will be taken, unless more is asked for."""
        ready = list(self._ready)
        left: dict[str, int] = {}
        done: Iterable[str] = self._taken
        while True:
            for node_id in done:
                for other in self._needed_by.get(node_id, ()):
                    left[other] = left.get(other, len(self._waits_for[other])) - 1
                    if not left[other]:
                        heappush(ready, self._ranked(other))
            if not ready:
                return
            done = [heappop(ready)[2]]
            yield done[0]

    def __bool__(self) -> bool:
        return bool(self._waits_for)
