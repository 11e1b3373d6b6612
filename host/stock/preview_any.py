"""Any value as text."""

from __future__ import annotations

import json
from typing import Any, ClassVar


class PreviewAny:
    DESCRIPTION = "Shows whatever is wired to it as text."
    SEARCH_ALIASES: ClassVar[list[str]] = [
        "show output",
        "inspect",
        "debug",
        "print value",
        "show text",
    ]
    CATEGORY = "utilities"
    RETURN_TYPES = ("STRING",)
    FUNCTION = "show"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"source": ("*", {"tooltip": "Any output of any node."})}}

    def show(self, source: Any = None) -> dict[str, Any]:
        text = as_text(source)
        return {"ui": {"text": (text,)}, "result": (text,)}


def as_text(value: Any) -> str:
    """Words and numbers as they are, lists and dictionaries as JSON, the rest as Python would."""
    if value is None or isinstance(value, (str, int, float)):
        return str(value)
    try:
        return json.dumps(value, indent=4, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):  # something in it that JSON does not know
        return str(value)


NODES = {"PreviewAny": (PreviewAny, "Preview as Text")}
