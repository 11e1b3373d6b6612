"""Refusals, and JSON bodies within limits. No answer carries a traceback or a path of the disk."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from aiohttp import web

MAX_JSON_BYTES = 16 << 20
MAX_JSON_DEPTH = 64

_TOO_LARGE = "The request is larger than {} MB."


class Refusal(Exception):
    """Ends a request with `status` and `{"error": message}`."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def refuse(status: int, message: str) -> NoReturn:
    raise Refusal(status, message)


async def read_body(request: web.Request, max_bytes: int) -> bytes:
    """The body. Raises Refusal 413 when it is too large, without having kept all of it."""
    if (request.content_length or 0) > max_bytes:
        refuse(413, _TOO_LARGE.format(max_bytes >> 20))
    body = bytearray()
    async for chunk in request.content.iter_chunked(1 << 16):
        body += chunk
        if len(body) > max_bytes:
            refuse(413, _TOO_LARGE.format(max_bytes >> 20))
    return bytes(body)


async def read_json(request: web.Request, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """The body as JSON. Raises Refusal: 413 when too large, 400 for what is not plain JSON, is
    nested too deep, or holds text that is not Unicode (a lone surrogate)."""
    body = await read_body(request, max_bytes)
    return parse_json(body)


def parse_json(text: str | bytes) -> Any:
    """Raises Refusal 400, see `read_json`."""
    try:
        value = json.loads(text, parse_constant=_finite, parse_float=_finite)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        refuse(400, "The request is not valid JSON.")
    if not _is_shallow(value):
        refuse(400, f"The request is nested more than {MAX_JSON_DEPTH} deep.")
    return value


async def read_object(request: web.Request) -> dict[str, Any]:
    """The body as a JSON object; raises Refusal."""
    value = await read_json(request)
    if not isinstance(value, dict):
        refuse(400, "The request must be a JSON object.")
    return value


def _finite(text: str) -> float:
    """NaN and Infinity, or 1e999, could not be sent on as JSON."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _is_shallow(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_JSON_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return True
    return False
