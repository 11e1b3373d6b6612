"""Node objects, which outlive a prompt: a node may keep something for its next call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .declarations import Prompt


class Instances:
    """One object per node id and class, kept as long as prompts have that node."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, str], Any] = {}

    def get(self, node_id: str, class_type: str, make: Callable[[], Any]) -> Any:
        key = (node_id, class_type)
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def keep_only(self, prompt: Prompt) -> None:
        self._made = {
            (node_id, class_type): instance
            for (node_id, class_type), instance in self._made.items()
            if node_id in prompt and prompt[node_id]["class_type"] == class_type
        }

    def clear(self) -> None:
        self._made = {}
