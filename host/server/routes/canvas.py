"""The canvas: its page and everything that belongs to it. Last of all, it answers any path."""

from __future__ import annotations

import re

from aiohttp import web

from ..frontend import frontend_folder
from ..static_files import CHECK_AGAIN, send_file

# A file with a hash of its content in its name never changes.
HASHED = re.compile(r"assets/[^/]+-[\w-]{8}\.(js|css|json|woff2?|ttf|eot|svg)")
FOREVER = "public, max-age=31536000, immutable"
NEVER = "no-store, must-revalidate"


async def get_index(request: web.Request) -> web.StreamResponse:
    return await send_file(frontend_folder(), "index.html", cache_control=NEVER)


async def get_style(request: web.Request) -> web.Response:
    """Empty: a person's own style sheet lies in the user data, and the page asks for it there."""
    return web.Response(content_type="text/css")


async def get_file(request: web.Request) -> web.StreamResponse:
    path = request.match_info["path"]
    cache_control = FOREVER if HASHED.fullmatch(path) else CHECK_AGAIN
    return await send_file(frontend_folder(), path, cache_control=cache_control)


ROUTES = (
    web.get("/", get_index),
    web.get("/user.css", get_style),
    web.get("/{path:.+}", get_file),
)
