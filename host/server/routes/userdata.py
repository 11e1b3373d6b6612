"""A person's own files: saved workflows, blueprints, templates, key bindings, a style sheet.

They lie in a folder of their own below `user`, away from what the host keeps there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from ....wuerstchen_core.files import write_atomically
from ....wuerstchen_core.folder_lock import folder_lock
from ..answers import read_body, refuse
from ..context import host_of
from ..paths import file_inside, inside, is_hidden, writing_there
from ..user_files import send_user_file

FOLDER = "default"  # ComfyUI's name for the only user
MAX_FILE_BYTES = 32 << 20

STYLE_SHEET = "user.css"
# What the canvas reads at each start, as it is before anybody saved it: a 404 would be an error
# in the browser's console.
UNSAVED_FILES = {
    STYLE_SHEET: "",
    "comfy.templates.json": "[]",
    "workflows/.index.json": '{"favorites": []}',
}
UNSAVED_FOLDERS = frozenset({"workflows", "subgraphs", "keybindings"})


async def get_users(request: web.Request) -> web.Response:
    return web.json_response({"storage": "server", "migrated": True})


async def get_file(request: web.Request) -> web.StreamResponse:
    path, name = await asyncio.to_thread(_path, request, "file")
    is_style = name == STYLE_SHEET
    if not await asyncio.to_thread(path.is_file):
        if name not in UNSAVED_FILES:
            refuse(404, "There is no such file.")
        kind = "text/css" if is_style else "application/json"
        return web.Response(text=UNSAVED_FILES[name], content_type=kind)
    if is_style:
        return web.FileResponse(path, headers={"Content-Type": "text/css; charset=utf-8"})
    return send_user_file(path, inline=False)


async def post_file(request: web.Request) -> web.Response:
    path, _ = await asyncio.to_thread(_path, request, "file")
    body = await read_body(request, MAX_FILE_BYTES)
    await asyncio.to_thread(_write, _root(request), path, body, _may_replace(request))
    return await _told(request, path)


def _write(root: Path, path: Path, body: bytes, may_replace: bool) -> None:
    with _room_for(root, path, may_replace), write_atomically(path) as partial:
        partial.write_bytes(body)


async def delete_file(request: web.Request) -> web.Response:
    path, _ = await asyncio.to_thread(_path, request, "file")
    try:
        await asyncio.to_thread(path.unlink)
    except OSError:
        refuse(404, "There is no such file.")
    return web.Response(status=204)


async def move_file(request: web.Request) -> web.Response:
    source, _ = await asyncio.to_thread(_path, request, "file")
    target, _ = await asyncio.to_thread(_path, request, "target")
    await asyncio.to_thread(_move, _root(request), source, target, _may_replace(request))
    return await _told(request, target)


def _move(root: Path, source: Path, target: Path, may_replace: bool) -> None:
    if not source.is_file():
        refuse(404, "There is no such file.")
    with _room_for(root, target, may_replace):
        source.replace(target)


async def list_files(request: web.Request) -> web.Response:
    name = request.query.get("dir", "")
    if not name:
        refuse(400, "Say which folder, as ?dir=….")
    found = await asyncio.to_thread(_list, _root(request), name, _is_on(request, "recurse"))
    if _is_on(request, "full_info"):
        return web.json_response(found)
    names = [about["path"] for about in found]
    if _is_on(request, "split"):
        return web.json_response([[one, *one.split("/")] for one in names])
    return web.json_response(names)


def _list(root: Path, name: str, recurse: bool) -> list[dict[str, Any]]:
    """Hidden files, and links that lead out, are left out. Raises Refusal."""
    folder = inside(root, name)
    if not folder.is_dir() and name not in UNSAVED_FOLDERS:
        refuse(404, "There is no such folder.")
    return [
        _about(path, folder)
        for path in sorted(folder.glob("**/*" if recurse else "*"))
        if path.is_file()
        and not is_hidden(path.relative_to(folder).as_posix())
        and path.resolve().is_relative_to(root)
    ]


def _root(request: web.Request) -> Path:
    root = host_of(request).user / FOLDER
    root.mkdir(exist_ok=True)
    return root.resolve()


def _path(request: web.Request, key: str) -> tuple[Path, str]:
    """Where a file of the address lies, and its name below the root. Raises Refusal."""
    root = _root(request)
    path = file_inside(root, request.match_info[key])
    return path, path.relative_to(root).as_posix()


@contextmanager
def _room_for(root: Path, path: Path, may_replace: bool) -> Iterator[None]:
    """Inside, the folder of `path` exists, and nobody else puts a file there.

    Raises Refusal: 409 for a file that may not be replaced, 400 for a name that cannot be.
    """
    with writing_there():
        path.parent.mkdir(parents=True, exist_ok=True)
        with folder_lock(root):
            if path.is_file() and not may_replace:
                refuse(409, "There is a file of this name already.")
            yield


def _may_replace(request: web.Request) -> bool:
    return request.query.get("overwrite") != "false"


def _is_on(request: web.Request, name: str) -> bool:
    return request.query.get(name, "").lower() == "true"


async def _told(request: web.Request, path: Path) -> web.Response:
    about = await asyncio.to_thread(_about, path, _root(request))
    return web.json_response(about if _is_on(request, "full_info") else about["path"])


def _about(path: Path, folder: Path) -> dict[str, Any]:
    """Times are ms since 1970."""
    found = path.stat()
    return {
        "path": path.relative_to(folder).as_posix(),
        "size": found.st_size,
        "modified": int(found.st_mtime * 1000),
        "created": int(found.st_ctime * 1000),
    }


ROUTES = (
    web.get("/users", get_users),
    web.get("/userdata", list_files),
    web.get("/userdata/{file}", get_file),
    web.post("/userdata/{file}", post_file),
    web.delete("/userdata/{file}", delete_file),
    web.post("/userdata/{file}/move/{target}", move_file),
)
