"""What a node class declares, and what a value in a prompt is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NodeRegistry = Mapping[str, type]
Prompt = dict[str, dict[str, Any]]

WIDGET_TYPES = frozenset({"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"})
CONTROL_VALUES = ("fixed", "increment", "decrement", "randomize", "increment-wrap")


@dataclass(frozen=True)
class InputSpec:
    """One declared input: `type` is a socket or widget type, or a list of choices."""

    name: str
    type: Any
    options: Mapping[str, Any]
    required: bool

    @property
    def choices(self) -> list[Any] | None:
        """What a combo offers, or None when this is not a combo."""
        if isinstance(self.type, (list, tuple)):
            return list(self.type)
        return list(self.options.get("options", [])) if self.type == "COMBO" else None

    @property
    def kind(self) -> str:
        return "COMBO" if self.choices is not None else str(self.type)

    @property
    def is_widget(self) -> bool:
        if self.options.get("forceInput"):
            return False
        return self.kind in WIDGET_TYPES or self.options.get("widgetType") in WIDGET_TYPES

    @property
    def has_control(self) -> bool:
        """Whether the canvas adds a "control after generate" widget behind this one."""
        control = self.options.get("control_after_generate")
        if control is None:
            return self.kind == "INT" and self.name in ("seed", "noise_seed")
        return bool(control)

    @property
    def default(self) -> Any:
        if "default" in self.options:
            return self.options["default"]
        if self.choices is not None:
            return self.choices[0] if self.choices else None
        return {"INT": 0, "FLOAT": 0.0, "STRING": "", "BOOLEAN": False}.get(self.kind)

    @property
    def config(self) -> list[Any]:
        """The `[type, options]` pair that ComfyUI echoes in its errors."""
        return [self.type, dict(self.options)]


class Declaration:
    """A reading of `INPUT_TYPES`, made once per class and use (folders may change between uses)."""

    def __init__(self, node_class: type) -> None:
        self._inputs: Mapping[str, Any] = node_class.INPUT_TYPES()  # type: ignore[attr-defined]
        self.hidden: Mapping[str, Any] = self._inputs.get("hidden", {})
        self.named = {
            name: _spec(name, declared, section == "required")
            for section in ("required", "optional")
            for name, declared in self._inputs.get(section, {}).items()
        }

    def get(self, name: str) -> InputSpec | None:
        """The input of this name; a class may accept names that it does not list."""
        if name in self.named:
            return self.named[name]
        optional = self._inputs.get("optional", {})
        return _spec(name, optional[name], False) if name in optional else None

    @property
    def widgets(self) -> list[InputSpec]:
        return [spec for spec in self.named.values() if spec.is_widget]


def _spec(name: str, declared: Any, required: bool) -> InputSpec:
    options = declared[1] if len(declared) > 1 and isinstance(declared[1], Mapping) else {}
    return InputSpec(name, declared[0], options, required)


def is_link(value: Any) -> bool:
    """A link is `[node id, output slot]`."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], (int, float))
        and not isinstance(value[1], bool)
    )


def unwrapped(value: Any) -> Any:
    """A list that is a value, not a link, travels as `{"__value__": [...]}`."""
    return value["__value__"] if isinstance(value, dict) and "__value__" in value else value


def wrapped(value: Any) -> Any:
    return {"__value__": value} if isinstance(value, list) else value


def is_finite(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def node_title(prompt: Mapping[str, Any], node_id: str) -> str:
    """The title that a person gave the node, else its class."""
    node = prompt[node_id]
    meta = node.get("_meta")
    title = meta.get("title") if isinstance(meta, dict) else None
    return str(title or node.get("class_type"))
