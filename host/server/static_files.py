"""Files sent as they are, under the types that browsers insist on."""

from __future__ import annotations

import asyncio
import mimetypes
from pathlib import Path

from aiohttp import web

from .answers import refuse
from .paths import inside

# Said here because the system's own table is wrong or empty on some machines.
CONTENT_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json; charset=utf-8",
    ".map": "application/json; charset=utf-8",
    ".md": "text/markdown; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".ttf": "font/ttf",
    ".wasm": "application/wasm",
    ".webp": "image/webp",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
}

CHECK_AGAIN = "no-cache"  # the browser keeps it, and asks each time whether it is still the same


async def send_file(
    folder: Path, *parts: str, cache_control: str = CHECK_AGAIN
) -> web.StreamResponse:
    """The file `folder/parts…`. Raises Refusal: 403 for what leads out of the folder, 404 where
    there is no such file."""
    path = await asyncio.to_thread(_find, folder, parts)
    headers = {"Content-Type": content_type(path), "Cache-Control": cache_control}
    return web.FileResponse(path, headers=headers)


def _find(folder: Path, parts: tuple[str, ...]) -> Path:
    path = inside(folder, *parts)
    if not path.is_file():
        refuse(404, "There is no such file.")
    return path


def content_type(path: Path) -> str:
    known = CONTENT_TYPES.get(path.suffix.lower())
    return known or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
