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
        return {"required": {"value": (cls.KIND, dict(cls.OPTIONS))}}

    def give(self, value: Any) -> tuple[Any]:
        return (value,)


class PrimitiveInt(_Primitive):
    KIND = "INT"
    OPTIONS: ClassVar[dict[str, Any]] = {
        "min": -sys.maxsize,
        "max": sys.maxsize,
        "control_after_generate": "fixed",
    }
    RETURN_TYPES = ("INT",)


class PrimitiveFloat(_Primitive):
    KIND = "FLOAT"
    OPTIONS: ClassVar[dict[str, Any]] = {"min": -sys.maxsize, "max": sys.maxsize, "step": 0.1}
    RETURN_TYPES = ("FLOAT",)


class PrimitiveString(_Primitive):
    KIND = "STRING"
    SEARCH_ALIASES: ClassVar[list[str]] = ["text", "string", "prompt"]
    RETURN_TYPES = ("STRING",)


class PrimitiveStringMultiline(PrimitiveString):
    OPTIONS: ClassVar[dict[str, Any]] = {"multiline": True}


class PrimitiveBoolean(_Primitive):
    KIND = "BOOLEAN"
    RETURN_TYPES = ("BOOLEAN",)
