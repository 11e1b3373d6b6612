"""The canvas's saved workflow as plain objects: nodes, links, subgraph definitions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..wuerstchen_core.errors import WuerstchenError

SUBGRAPH_INPUT_ID = "-10"
SUBGRAPH_OUTPUT_ID = "-20"


class GraphFileError(WuerstchenError):
    """A file does not hold a graph that can be run."""


@dataclass(frozen=True)
class Link:
    origin_id: str
    origin_slot: int
    target_id: str
    target_slot: int


@dataclass(frozen=True)
class Slot:
    """An input or output as saved; `link` is the id of the link into an input."""

    name: str
    type: str
    link: str | None = None


@dataclass(frozen=True, eq=False)
class CanvasNode:
    """One saved node; `raw` is the saved object itself, so that values can be written back."""

    id: str
    type: str
    mode: int
    inputs: list[Slot]
    outputs: list[Slot]
    raw: dict[str, Any]

    @property
    def is_muted(self) -> bool:
        return self.mode == 2

    @property
    def is_bypassed(self) -> bool:
        return self.mode == 4

    @property
    def title(self) -> str | None:
        return self.raw.get("title")


@dataclass(frozen=True, eq=False)
class Canvas:
    """The root graph, or the definition of a subgraph with its own `inputs` and `outputs`."""

    nodes: dict[str, CanvasNode]
    links: dict[str, Link]
    inputs: list[Slot] = field(default_factory=list)
    outputs: list[Slot] = field(default_factory=list)

    def link_into(self, target_id: str, slot: int) -> Link | None:
        for link in self.links.values():
            if link.target_id == target_id and link.target_slot == slot:
                return link
        return None

    def links_from_input(self, slot: int) -> list[Link]:
        return [
            link
            for link in self.links.values()
            if link.origin_id == SUBGRAPH_INPUT_ID and link.origin_slot == slot
        ]


def read_canvases(workflow: dict[str, Any]) -> tuple[Canvas, dict[str, Canvas]]:
    """The root graph and the subgraph definitions by id; raises `GraphFileError`."""
    definitions: dict[str, Canvas] = {}
    try:
        root = _read_canvas(workflow)
        waiting = [workflow]
        while waiting:
            owner = waiting.pop()
            for raw in (owner.get("definitions") or {}).get("subgraphs") or []:
                definitions[str(raw["id"])] = _read_canvas(raw)
                waiting.append(raw)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise GraphFileError(
            f"The workflow is damaged ({type(error).__name__}: {error}); "
            "save it again on the canvas."
        ) from error
    return root, definitions


def _read_canvas(raw: dict[str, Any]) -> Canvas:
    links = dict(_read_link(link) for link in raw.get("links") or [])
    nodes = [_read_node(node, links) for node in raw["nodes"]]
    return Canvas(
        {node.id: node for node in nodes},
        links,
        [_read_slot(slot) for slot in raw.get("inputs") or []],
        [_read_slot(slot) for slot in raw.get("outputs") or []],
    )


def _read_link(raw: Any) -> tuple[str, Link]:
    """A link is `[id, origin, slot, target, slot, type]` (0.4) or an object (1.0, subgraphs)."""
    if isinstance(raw, dict):
        raw = [raw[k] for k in ("id", "origin_id", "origin_slot", "target_id", "target_slot")]
    return str(raw[0]), Link(str(raw[1]), int(raw[2]), str(raw[3]), int(raw[4]))


def _read_node(raw: dict[str, Any], links: dict[str, Link]) -> CanvasNode:
    node_id = str(raw["id"])
    by_target = {link.target_slot: key for key, link in links.items() if link.target_id == node_id}
    inputs = [
        _read_slot(slot, None if "link" in slot else by_target.get(i))
        for i, slot in enumerate(raw.get("inputs") or [])
    ]
    outputs = [_read_slot(slot) for slot in raw.get("outputs") or []]
    return CanvasNode(node_id, str(raw["type"]), int(raw.get("mode") or 0), inputs, outputs, raw)


def _read_slot(raw: dict[str, Any], link: str | None = None) -> Slot:
    kind = raw.get("type")
    kind = ",".join(map(str, kind)) if isinstance(kind, list) else str(kind or "*")
    if raw.get("link") is not None:
        link = str(raw["link"])
    return Slot(str(raw.get("name", "")), kind, link)
