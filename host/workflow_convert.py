"""From the canvas's workflow to the prompt that runs, by the rules of the canvas itself.

Virtual nodes (reroutes, primitives, notes) vanish, muted nodes are dropped, bypassed nodes let
their inputs through, and subgraphs are unfolded: node 3 inside instance 5 becomes `5:3`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from .declarations import Declaration, Prompt, wrapped
from .registry import Nodes
from .workflow_graph import (
    SUBGRAPH_INPUT_ID,
    SUBGRAPH_OUTPUT_ID,
    Canvas,
    CanvasNode,
    GraphFileError,
    Link,
    Slot,
    read_canvases,
)
from .workflow_widgets import WidgetValue, node_widgets

NOTES = frozenset({"Note", "MarkdownNote"})
REROUTE = "Reroute"
PRIMITIVE = "PrimitiveNode"
VIRTUAL = NOTES | {REROUTE, PRIMITIVE}


@dataclass
class Converted:
    """The prompt, and where the workflow holds each widget value of it."""

    prompt: Prompt = field(default_factory=dict)
    values: dict[tuple[str, str], WidgetValue] = field(default_factory=dict)


@dataclass(frozen=True)
class _Output:
    """A real output: what a link of the prompt points to."""

    node_id: str
    slot: int


_Source = _Output | WidgetValue | None


@dataclass(frozen=True, eq=False)
class _Place:
    """A graph where it is used: the root, or one instance (`host`) of a subgraph."""

    canvas: Canvas
    path: tuple[str, ...] = ()
    parent: _Place | None = None
    host: CanvasNode | None = None
    overrides: dict[tuple[str, str], WidgetValue] = field(default_factory=dict)

    def id_of(self, node: CanvasNode) -> str:
        return ":".join((*self.path, node.id))


def convert_workflow(workflow: dict[str, Any], nodes: Nodes) -> Converted:
    """The prompt of a saved workflow. Raises `GraphFileError` when it cannot be read."""
    root, definitions = read_canvases(workflow)
    converter = _Converter(nodes, definitions)
    converter.convert(_Place(root))
    return converter.converted


class _Converter:
    def __init__(self, nodes: Nodes, definitions: dict[str, Canvas]) -> None:
        self._nodes = nodes
        self._definitions = definitions
        self._declarations: dict[str, Declaration] = {}
        self._instances: dict[str, _Place] = {}
        self.converted = Converted()

    def convert(self, place: _Place) -> None:
        for node in place.canvas.nodes.values():
            if node.is_muted or node.is_bypassed or node.type in VIRTUAL:
                continue
            if node.type in self._definitions:
                self.convert(self._enter(place, node))
            else:
                self._convert_node(place, node)

    def _convert_node(self, place: _Place, node: CanvasNode) -> None:
        node_id = place.id_of(node)
        inputs: dict[str, Any] = {}
        for name, widget in node_widgets(node, self._declaration(node.type)).items():
            self._put(node_id, inputs, name, place.overrides.get((node.id, name), widget))
        for index, slot in enumerate(node.inputs):
            source = self._input(place, node, index, slot.type, frozenset())
            if isinstance(source, _Output):
                inputs[slot.name] = [source.node_id, source.slot]
                self.converted.values.pop((node_id, slot.name), None)
            elif source is not None:
                self._put(node_id, inputs, slot.name, source)
        self.converted.prompt[node_id] = {
            "class_type": node.type,
            "inputs": inputs,
            "_meta": {"title": node.title or self._nodes.display_name(node.type)},
        }

    def _put(self, node_id: str, inputs: dict[str, Any], name: str, value: WidgetValue) -> None:
        inputs[name] = wrapped(value.value)
        self.converted.values[node_id, name] = value

    def _declaration(self, class_type: str) -> Declaration | None:
        if class_type not in self._nodes.classes:
            return None
        if class_type not in self._declarations:
            self._declarations[class_type] = Declaration(self._nodes.classes[class_type])
        return self._declarations[class_type]

    def _enter(self, place: _Place, host: CanvasNode) -> _Place:
        """The inside of a subgraph instance, with the values its promoted widgets set there."""
        path = (*place.path, host.id)
        key = ":".join(path)
        if key not in self._instances:
            ancestor: _Place | None = place
            while ancestor is not None:
                if ancestor.host is not None and ancestor.host.type == host.type:
                    raise GraphFileError(f"Subgraph node {key} contains itself; take it apart.")
                ancestor = ancestor.parent
            inner = _Place(self._definitions[host.type], path, place, host)
            inner.overrides.update(self._proxied(place, inner, host))
            self._instances[key] = inner
        return self._instances[key]

    # Where a value comes from. `seen` guards against links that run in a circle.

    def _input(
        self, place: _Place, node: CanvasNode, index: int, kind: str, seen: frozenset[Any]
    ) -> _Source:
        """What feeds an input; None is nothing. `kind` is the type that the reader wants."""
        if index >= len(node.inputs) or (slot := node.inputs[index]).link is None:
            return None
        link = place.canvas.links.get(slot.link)
        if link is None:
            return None
        step = (place.path, slot.link)
        if step in seen:
            raise GraphFileError(
                f"The links into '{slot.name}' of node {place.id_of(node)} run in a circle; "
                "cut one."
            )
        if link.origin_id == SUBGRAPH_INPUT_ID and place.host is not None:
            return self._from_outside(place, link.origin_slot, kind, seen | {step})
        origin = place.canvas.nodes.get(link.origin_id)
        return origin and self._output(place, origin, link.origin_slot, kind, seen | {step})

    def _output(
        self, place: _Place, node: CanvasNode, slot: int, kind: str, seen: frozenset[Any]
    ) -> _Source:
        if node.type == PRIMITIVE:
            values = node.raw.get("widgets_values") or []
            named = node.raw.get("widgets_values_named") or {}
            held = _held(values, 0) if isinstance(values, list) else None
            if "value" not in named:
                return held
            return WidgetValue(named["value"], (*(held.places if held else ()), (named, "value")))
        if node.is_muted:
            return None
        if node.is_bypassed:
            index = _bypass_index(node, slot, kind)
            return None if index is None else self._input(place, node, index, kind, seen)
        if node.type == REROUTE:
            return self._input(place, node, 0, kind, seen)
        if node.type in NOTES:
            return None
        if node.type in self._definitions:
            return self._from_inside(self._enter(place, node), slot, kind, seen)
        return _Output(place.id_of(node), slot)

    def _from_inside(self, inner: _Place, slot: int, kind: str, seen: frozenset[Any]) -> _Source:
        """What a subgraph instance gives on one of its outputs."""
        link = inner.canvas.link_into(SUBGRAPH_OUTPUT_ID, slot)
        if link is None:
            return None
        if link.origin_id == SUBGRAPH_INPUT_ID:
            return self._from_outside(inner, link.origin_slot, kind, seen)
        origin = inner.canvas.nodes.get(link.origin_id)
        return origin and self._output(inner, origin, link.origin_slot, kind, seen)

    def _from_outside(self, inner: _Place, slot: int, kind: str, seen: frozenset[Any]) -> _Source:
        """What comes in through an input of the subgraph: a link, or its promoted widget."""
        host, outer = inner.host, inner.parent
        if host is None or outer is None or slot >= len(inner.canvas.inputs):
            return None
        name = inner.canvas.inputs[slot].name
        for index, candidate in enumerate(host.inputs):
            if candidate.name == name and candidate.link is not None:
                return self._input(outer, host, index, kind, seen)
        return outer.overrides.get((host.id, name)) or self._promoted(inner, slot)

    # Promoted widgets: values that a subgraph instance holds for widgets inside it.

    def _promoted(self, inner: _Place, slot: int) -> WidgetValue | None:
        host = inner.host
        assert host is not None
        name = inner.canvas.inputs[slot].name
        named = host.raw.get("widgets_values_named")
        values = host.raw.get("widgets_values")
        proxies = _proxy_list(host)
        if isinstance(values, list) and proxies:
            targets = {(link.target_id, target) for link, target in self._targets(inner, slot)}
            for i, proxy in enumerate(proxies[: len(values)]):
                if proxy == ("-1", name) or proxy in targets:
                    return _held(values, i)
            return None
        found = _held(values, self._widget_index(inner, slot)) if isinstance(values, list) else None
        if isinstance(named, dict) and name in named:
            return WidgetValue(named[name], (*(found.places if found else ()), (named, name)))
        return found

    def _widget_index(self, inner: _Place, slot: int) -> int:
        """Saved values stand in the order of those subgraph inputs that lead to a widget."""
        if not self._targets(inner, slot):
            return -1
        return sum(bool(self._targets(inner, earlier)) for earlier in range(slot))

    def _targets(self, inner: _Place, slot: int) -> list[tuple[Link, str]]:
        """The widgets inside that a subgraph input leads to: the link and the widget's name."""
        return [
            (link, target.inputs[link.target_slot].name)
            for link in inner.canvas.links_from_input(slot)
            if (target := inner.canvas.nodes.get(link.target_id)) is not None
            and link.target_slot < len(target.inputs)
            and self._is_widget(inner, target, target.inputs[link.target_slot])
        ]

    def _is_widget(self, place: _Place, node: CanvasNode, slot: Slot) -> bool:
        if node.type in self._definitions:
            inner = self._enter(place, node)
            names = [one.name for one in inner.canvas.inputs]
            return slot.name in names and bool(self._targets(inner, names.index(slot.name)))
        declaration = self._declaration(node.type)
        spec = declaration.get(slot.name) if declaration else None
        return spec is not None and spec.is_widget

    def _proxied(
        self, place: _Place, inner: _Place, host: CanvasNode
    ) -> Iterator[tuple[tuple[str, str], WidgetValue]]:
        """Values for inner widgets that an instance names one by one (`proxyWidgets`)."""
        values = host.raw.get("widgets_values")
        for i, (node_id, name) in enumerate(_proxy_list(host)):
            outer = place.overrides.get((host.id, name))
            if outer is not None:
                yield (node_id, name), outer
            elif isinstance(values, list) and (held := _held(values, i)) is not None:
                yield (node_id, name), held


def _proxy_list(host: CanvasNode) -> list[tuple[str, str]]:
    listed = (host.raw.get("properties") or {}).get("proxyWidgets") or []
    return [(str(one[0]), str(one[1])) for one in listed if isinstance(one, list) and len(one) >= 2]


def _held(values: list[Any], index: int) -> WidgetValue | None:
    if not 0 <= index < len(values) or values[index] is None:
        return None
    return WidgetValue(values[index], ((values, index),))


def _bypass_index(node: CanvasNode, slot: int, wanted: str) -> int | None:
    """The input that a bypassed node hands on to its output `slot`: the same place if it fits,
    else the first input of exactly that type, else the first that fits."""
    if slot >= len(node.outputs) or not node.inputs:
        return None
    if wanted in ("*", ""):
        return slot if slot < len(node.inputs) else 0
    offered = node.outputs[slot].type

    def fits(kind: str) -> bool:
        return _connects(kind, offered) and _connects(kind, wanted)

    if slot < len(node.inputs) and fits(node.inputs[slot].type):
        return slot
    kinds = [one.type for one in node.inputs]
    if wanted in kinds:
        return kinds.index(wanted)
    return next((i for i, kind in enumerate(kinds) if fits(kind)), None)


def _connects(one: str, other: str) -> bool:
    if "*" in (one, other) or "" in (one, other):
        return True
    return bool(set(one.lower().split(",")) & set(other.lower().split(",")))
