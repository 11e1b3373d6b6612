"""The machine, the server's abilities, its log, and its folders."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from aiohttp import web

from ....nodes.runtime import MODELS_FOLDER
from ..answers import read_object, refuse
from ..context import host_of
from ..features import FEATURES
from ..frontend import frontend_version
from ..machine import devices, ram

# The ComfyUI whose protocol this server speaks.
COMFYUI_VERSION = "0.33.0"
# Tells the canvas that it must not ask the servers of ComfyUI's makers for news. The program's
# real arguments name folders of this machine.
ARGUMENTS = ["main.py", "--disable-api-nodes"]
LOG_SIZE = {"cols": 120, "rows": 30}


async def get_system_stats(request: web.Request) -> web.Response:
    return web.json_response(await asyncio.to_thread(_system_stats))


def _system_stats() -> dict[str, Any]:
    ram_total, ram_free = ram()
    return {
        "system": {
            "os": sys.platform,
            "ram_total": ram_total,
            "ram_free": ram_free,
            "comfyui_version": COMFYUI_VERSION,
            "required_frontend_version": frontend_version(),
            "installed_templates_version": None,
            "required_templates_version": None,
            "comfy_package_versions": [],
            "python_version": sys.version,
            "pytorch_version": torch.__version__,
            "embedded_python": False,
            "deploy_environment": "wuerstchen",
            "argv": ARGUMENTS,
        },
        "devices": devices(),
    }


async def get_features(request: web.Request) -> web.Response:
    return web.json_response(FEATURES)


async def get_log(request: web.Request) -> web.Response:
    lines = [f"{entry['t']} - {entry['m']}" for entry in host_of(request).log.entries.copy()]
    return web.json_response("".join(lines))


async def get_raw_log(request: web.Request) -> web.Response:
    entries = list(host_of(request).log.entries.copy())
    return web.json_response({"entries": entries, "size": LOG_SIZE})


async def subscribe_log(request: web.Request) -> web.Response:
    body = await read_object(request)
    client_id, enabled = body.get("clientId"), body.get("enabled")
    if not isinstance(client_id, str) or not isinstance(enabled, bool):
        refuse(400, "clientId must be a string, and enabled true or false.")
    host_of(request).hub.subscribe_logs(client_id, enabled)
    return web.Response()


async def get_folder_paths(request: web.Request) -> web.Response:
    """Where weights belong; names only, where the folders lie is not said."""
    folders = host_of(request).folders.models
    return web.json_response({MODELS_FOLDER: [folder.name for folder in folders]})


async def get_files(request: web.Request) -> web.Response:
    kind = request.match_info["kind"]
    folders = host_of(request).folders
    known = {"input": folders.input, "output": folders.output, "temp": folders.temp}
    if kind not in known:
        refuse(400, "There are the folders input, output and temp.")
    names = await asyncio.to_thread(_newest_first, known[kind])
    return web.json_response([f"{name} [{kind}]" for name in names])


def _newest_first(folder: Path) -> list[str]:
    """The files directly in the folder, without hidden ones."""
    changed = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        with suppress(FileNotFoundError):  # removed meanwhile
            if not path.name.startswith(".") and path.is_file():
                changed[path.name] = path.stat().st_mtime
    return sorted(changed, key=lambda name: -changed[name])


ROUTES = (
    web.get("/system_stats", get_system_stats),
    web.get("/features", get_features),
    web.get("/internal/logs", get_log),
    web.get("/internal/logs/raw", get_raw_log),
    web.patch("/internal/logs/subscribe", subscribe_log),
    web.get("/internal/folder_paths", get_folder_paths),
    web.get("/internal/files/{kind}", get_files),
)
