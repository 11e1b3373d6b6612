"""The canvas's settings, one JSON object in a file."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

from aiohttp import web

from ....wuerstchen_core.files import write_atomically
from ..answers import read_json, read_object, refuse
from ..context import host_of

logger = logging.getLogger(__name__)

FILE = "settings.json"
BROKEN_FILE = "settings.broken.json"
MAX_FILE_BYTES = 4 << 20
MAX_ID_LENGTH = 256

# Until the person says otherwise. The canvas would ask its makers' servers for news.
INITIAL = {"Comfy.Notification.ShowVersionUpdates": False}
# Once this is set, a browser that comes for the first time opens the canvas's built-in graph, made
# of nodes and weights that are not here; unset, it gets our templates to choose from.
NOT_KEPT = frozenset({"Comfy.TutorialCompleted"})


async def get_settings(request: web.Request) -> web.Response:
    return web.json_response(await asyncio.to_thread(_read, _file(request)))


async def get_setting(request: web.Request) -> web.Response:
    settings = await asyncio.to_thread(_read, _file(request))
    return web.json_response(settings.get(request.match_info["id"]))


async def post_settings(request: web.Request) -> web.Response:
    return await _change(request, await read_object(request))


async def post_setting(request: web.Request) -> web.Response:
    return await _change(request, {request.match_info["id"]: await read_json(request)})


async def _change(request: web.Request, changes: dict[str, Any]) -> web.Response:
    if any(len(key) > MAX_ID_LENGTH for key in changes):
        refuse(400, f"The name of a setting has at most {MAX_ID_LENGTH} letters.")
    lock = host_of(request).settings_lock
    await asyncio.to_thread(_merge, _file(request), changes, lock)
    return web.Response()


def _file(request: web.Request) -> Path:
    return host_of(request).user / FILE


def _read(file: Path) -> dict[str, Any]:
    return {**INITIAL, **_kept(file)}


def _kept(file: Path) -> dict[str, Any]:
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(kept, dict):
            return kept
    except FileNotFoundError:
        return {}
    except ValueError:
        pass
    logger.error("%s is no JSON object; it is now called %s", FILE, BROKEN_FILE)
    with suppress(FileNotFoundError):
        file.replace(file.with_name(BROKEN_FILE))
    return {}


def _merge(file: Path, changes: dict[str, Any], lock: Lock) -> None:
    with lock:
        settings = {**_kept(file), **changes}
        kept = {key: value for key, value in settings.items() if key not in NOT_KEPT}
        text = json.dumps(kept, indent=4)
        if len(text) > MAX_FILE_BYTES:
            refuse(413, f"All settings together are at most {MAX_FILE_BYTES >> 20} MB.")
        with write_atomically(file) as partial:
            partial.write_text(text, encoding="utf-8")


ROUTES = (
    web.get("/settings", get_settings),
    web.post("/settings", post_settings),
    web.get("/settings/{id}", get_setting),
    web.post("/settings/{id}", post_setting),
)
