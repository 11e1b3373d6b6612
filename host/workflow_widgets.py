"""Which widget holds which saved value, and where it is written so that it can be changed."""

from __future__ import annotations

from collections.abc import Iterator, MutableSequence
from dataclasses import dataclass
from typing import Any

from .declarations import CONTROL_VALUES, Declaration, InputSpec
from .workflow_graph import CanvasNode


@dataclass(frozen=True)
class WidgetValue:
    """A saved value and every place (container, key) of the workflow that holds it."""

    value: Any
    places: tuple[tuple[Any, Any], ...] = ()

    def write(self, value: Any) -> None:
        for container, key in self.places:
            container[key] = value


def node_widgets(node: CanvasNode, declaration: Declaration | None) -> dict[str, WidgetValue]:
    """The values of a node's widgets by name; what was not saved has its default.

    Without a declaration (an unknown class) only named values can be told apart.
    """
    values = node.raw.get("widgets_values")
    named = node.raw.get("widgets_values_named")
    found: dict[str, WidgetValue] = {}
    if declaration is not None:
        found = {spec.name: WidgetValue(spec.default) for spec in declaration.widgets}
        if isinstance(values, list):
            found |= dict(_positional(values, declaration))
    by_name = named if isinstance(named, dict) else values if isinstance(values, dict) else {}
    for name, value in by_name.items():
        if declaration is None or name in found:
            places = found[name].places if name in found else ()
            found[name] = WidgetValue(value, (*places, (by_name, name)))
    return found


def _positional(values: list[Any], declaration: Declaration) -> Iterator[tuple[str, WidgetValue]]:
    position = 0
    for spec in _layout(values, declaration):
        if position >= len(values):
            return
        if spec is not None and spec.is_widget:
            yield spec.name, WidgetValue(values[position], ((values, position),))
        position += 1
        if spec is not None and spec.has_control and _is_control(values, position):
            position += 1


def _layout(values: list[Any], declaration: Declaration) -> list[InputSpec | None]:
    """What stands where in the saved list; None is a value of the canvas's own.

    Canvases before 1.16 also saved values for inputs forced to be sockets. An upload button
    saves one value behind the required widgets. Which of them a file has is seen by its length.
    """
    plain: list[InputSpec | None] = [*declaration.widgets]
    forced: list[InputSpec | None] = [
        spec
        for spec in declaration.named.values()
        if spec.is_widget or spec.options.get("forceInput")
    ]
    layouts = [plain, _with_upload(plain), forced, _with_upload(forced)]
    fitting = [layout for layout in layouts if _length(values, layout) == len(values)]
    return (fitting or [_with_upload(plain)])[0]


def _with_upload(layout: list[InputSpec | None]) -> list[InputSpec | None]:
    uploads = [
        spec
        for spec in layout
        if spec and any(key.endswith("_upload") and on for key, on in spec.options.items())
    ]
    required = [spec for spec in layout if spec and spec.required]
    optional = [spec for spec in layout if spec and not spec.required]
    return [*required, *[None for _ in uploads], *optional]


def _length(values: list[Any], layout: list[InputSpec | None]) -> int:
    length = 0
    for spec in layout:
        length += 1
        if spec is not None and spec.has_control and _is_control(values, length):
            length += 1
    return length


def _is_control(values: MutableSequence[Any], position: int) -> bool:
    return position < len(values) and values[position] in CONTROL_VALUES
