"""Values as nodes."""

from __future__ import annotations

import sys
from typing import Any, ClassVar


class _Primitive:
    KIND: ClassVar[str]
    OPTIONS: ClassVar[dict[str, Any]] = {}
    FUNCTION = "give"
    CATEGORY = "utilities/primitive"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        options = {**cls.OPTIONS, "tooltip": "The value, for every input it is wired to."}
        return {"required": {"value": (cls.KIND, options)}}

    def give(self, value: Any) -> tuple[Any]:
        return (value,)


class PrimitiveInt(_Primitive):
    DESCRIPTION = "A whole number."
    KIND = "INT"
    OPTIONS: ClassVar[dict[str, Any]] = {
        "min": -sys.maxsize,
        "max": sys.maxsize,
        "control_after_generate": "fixed",
    }
    RETURN_TYPES = ("INT",)


class PrimitiveFloat(_Primitive):
    DESCRIPTION = "A number."
    KIND = "FLOAT"
    OPTIONS: ClassVar[dict[str, Any]] = {"min": -sys.maxsize, "max": sys.maxsize, "step": 0.1}
    RETURN_TYPES = ("FLOAT",)


class PrimitiveString(_Primitive):
    DESCRIPTION = "A text of one line."
    KIND = "STRING"
    OPTIONS: ClassVar[dict[str, Any]] = {"multiline": False}
    SEARCH_ALIASES: ClassVar[list[str]] = ["text", "string", "text box", "prompt"]
    RETURN_TYPES = ("STRING",)


class PrimitiveStringMultiline(_Primitive):
    DESCRIPTION = "A text of any number of lines."
    KIND = "STRING"
    OPTIONS: ClassVar[dict[str, Any]] = {"multiline": True}
    SEARCH_ALIASES: ClassVar[list[str]] = [
        "text",
        "string",
        "text multiline",
        "string multiline",
        "text box",
        "prompt",
    ]
    ESSENTIALS_CATEGORY = "Basics"
    RETURN_TYPES = ("STRING",)


class PrimitiveBoolean(_Primitive):
    DESCRIPTION = "Yes or no."
    KIND = "BOOLEAN"
    RETURN_TYPES = ("BOOLEAN",)


NODES = {
    "PrimitiveInt": (PrimitiveInt, "Int"),
    "PrimitiveFloat": (PrimitiveFloat, "Float"),
    "PrimitiveString": (PrimitiveString, "Text"),
    "PrimitiveStringMultiline": (PrimitiveStringMultiline, "Text (Multiline)"),
    "PrimitiveBoolean": (PrimitiveBoolean, "Boolean"),
}
