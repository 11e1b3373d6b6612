"""Reachability and cycles of a prompt, without recursion: a chain of nodes may be very long."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .declarations import Prompt, is_link

Links = dict[str, list[str]]  # the existing nodes that feed each node


def links_of(prompt: Prompt) -> Links:
    return {node_id: _linked_nodes(prompt, node.get("inputs")) for node_id, node in prompt.items()}


def _linked_nodes(prompt: Prompt, inputs: Any) -> list[str]:
    if not isinstance(inputs, dict):
        return []
    origins = [value[0] for value in inputs.values() if is_link(value)]
    return [origin for origin in dict.fromkeys(origins) if origin in prompt]


def upstream(links: Links, node_id: str) -> set[str]:
    """The node and everything it depends on."""
    seen = {node_id}
    waiting = [node_id]
    while waiting:
        for origin in links[waiting.pop()]:
            if origin not in seen:
                seen.add(origin)
                waiting.append(origin)
    return seen


def find_cycles(
    prompt: Prompt, links: Links, outputs: list[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields one `dependency_cycle` error for each node that lies on a circle of links."""
    done: set[str] = set()
    reported: set[str] = set()
    for output in outputs:
        if output in done:
            continue
        path = [output]
        on_path = {output}
        branches = [iter(links[output])]
        while branches:
            origin = next(branches[-1], None)
            if origin is None:
                branches.pop()
                on_path.discard(path[-1])
                done.add(path.pop())
            elif origin in on_path:
                cycle = path[path.index(origin) :]
                for node_id in cycle:
                    if node_id not in reported:
                        reported.add(node_id)
                        yield node_id, _cycle_error(prompt, cycle, node_id)
            elif origin not in done:
                path.append(origin)
                on_path.add(origin)
                branches.append(iter(links[origin]))


def _cycle_error(prompt: Prompt, cycle: list[str], node_id: str) -> dict[str, Any]:
    steps = [f"{step} ({prompt[step]['class_type']})" for step in [*cycle, cycle[0]]]
    return {
        "type": "dependency_cycle",
        "message": "Dependency cycle detected",
        "details": " -> ".join(steps),
        "extra_info": {"node_id": node_id, "cycle_nodes": cycle},
    }
