"""The weights that are there, for the canvas's model library."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aiohttp import web

from ....nodes.choices import WEIGHT_SUFFIXES
from ....nodes.runtime import MODELS_FOLDER, embedding_folders, use, weight_roots
from ....wuerstchen_core.embeddings import Embeddings
from ...folders import Folders, HostSurroundings
from ..answers import refuse
from ..context import host_of
from ..paths import is_hidden
from ..pictures import preview

SAFETENSORS = ".safetensors"
MAX_HEADER_BYTES = 8 << 20
HEADER_LENGTH_BYTES = 8  # a safetensors file starts with the length of its JSON header
PICTURE_SUFFIXES = (".webp", ".png", ".jpg", ".jpeg", ".gif")


async def get_folders(request: web.Request) -> web.Response:
    return web.json_response([MODELS_FOLDER])


async def get_names(request: web.Request) -> web.Response:
    found = await _files(request)
    return web.json_response(sorted({about["name"] for about in found}))


async def get_folders_with_places(request: web.Request) -> web.Response:
    """Where the folders lie is not said, only how they are called."""
    roots = await asyncio.to_thread(_roots, host_of(request).folders)
    answer = {
        "name": MODELS_FOLDER,
        "folders": [root.name for root in roots],
        "extensions": sorted(WEIGHT_SUFFIXES),
    }
    return web.json_response([answer])


async def get_files(request: web.Request) -> web.Response:
    return web.json_response(await _files(request))


async def get_preview(request: web.Request) -> web.Response:
    _check_folder(request)
    index, name = int(request.match_info["root_index"]), request.match_info["name"]
    folders = host_of(request).folders
    body, content_type = await asyncio.to_thread(_preview, folders, index, name)
    return web.Response(body=body, content_type=content_type)


async def get_metadata(request: web.Request) -> web.Response:
    _check_folder(request)
    name = request.query.get("filename", "")
    return web.json_response(await asyncio.to_thread(_metadata, host_of(request).folders, name))


async def get_embeddings(request: web.Request) -> web.Response:
    """The textual inversions that prompts may call, for completing their names."""
    return web.json_response(await asyncio.to_thread(_embeddings, host_of(request).folders))


async def _files(request: web.Request) -> list[dict[str, Any]]:
    _check_folder(request)
    return await asyncio.to_thread(_list, host_of(request).folders)


def _check_folder(request: web.Request) -> None:
    if request.match_info["folder"] != MODELS_FOLDER:
        refuse(404, f"All weights are in the folder {MODELS_FOLDER}.")


def _roots(folders: Folders) -> list[Path]:
    with use(HostSurroundings(folders)):
        return weight_roots()


def _embeddings(folders: Folders) -> list[str]:
    with use(HostSurroundings(folders)):
        return Embeddings(embedding_folders()).names()


def _list(folders: Folders) -> list[dict[str, Any]]:
    """Times are seconds since 1970."""
    found = []
    for index, root in enumerate(_roots(folders)):
        for path in _weights(root):
            about = path.stat()
            found.append(
                {
                    "name": path.relative_to(root).as_posix(),
                    "pathIndex": index,
                    "modified": about.st_mtime,
                    "created": about.st_ctime,
                    "size": about.st_size,
                }
            )
    return found


def _weights(root: Path) -> Iterator[Path]:
    """The files of weights below a folder. People link folders of weights to other disks, so
    links are followed, each folder once."""
    seen = set()
    for folder, subfolders, names in os.walk(root, followlinks=True):
        seen.add(os.path.realpath(folder))
        subfolders[:] = sorted(
            name
            for name in subfolders
            if not name.startswith(".") and os.path.realpath(os.path.join(folder, name)) not in seen
        )
        for name in sorted(names):
            path = Path(folder, name)
            if path.suffix.lower() in WEIGHT_SUFFIXES and not is_hidden(name) and path.is_file():
                yield path


def _find(root: Path, name: str, suffixes: tuple[str, ...] = WEIGHT_SUFFIXES) -> Path | None:
    """The weights below `root` called `name`, whose own suffix does not matter.

    Looked up among the files that are there: a name from the network is never made into a path.
    """
    wanted = os.path.splitext(name.replace("\\", "/"))[0]
    for path in _weights(root):
        known = path.with_suffix("").relative_to(root).as_posix()
        if known == wanted and path.suffix in suffixes:
            return path
    return None


def _preview(folders: Folders, root_index: int, name: str) -> tuple[bytes, str]:
    """A picture beside the weights that has their name, and its content type. Raises Refusal."""
    roots = _roots(folders)
    weights = _find(roots[root_index], name) if root_index < len(roots) else None
    if weights is None:
        refuse(404, "There are no such weights.")
    beside = weights.resolve().parent
    for ending in PICTURE_SUFFIXES:
        for picture in (weights.with_suffix(ending), weights.with_suffix(f".preview{ending}")):
            # Not through a link to somewhere else.
            if picture.is_file() and picture.resolve().parent == beside:
                return preview(picture, "webp", "")
    refuse(404, "There is no picture of these weights.")


def _metadata(folders: Folders, name: str) -> dict[str, Any]:
    """What a safetensors file says of itself. Raises Refusal."""
    if name.endswith(SAFETENSORS):
        for root in _roots(folders):
            if (path := _find(root, name, (SAFETENSORS,))) is not None:
                return _header(path).get("__metadata__", {})
    refuse(404, "There is no such safetensors file.")


def _header(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(HEADER_LENGTH_BYTES), "little")
        if length > MAX_HEADER_BYTES:
            refuse(413, f"The header of this file is larger than {MAX_HEADER_BYTES >> 20} MB.")
        text = file.read(length)
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        refuse(404, "This is no whole safetensors file.")
    return header


ROUTES = (
    web.get("/models", get_folders),
    web.get("/models/{folder}", get_names),
    web.get("/experiment/models", get_folders_with_places),
    web.get("/experiment/models/{folder}", get_files),
    web.get("/experiment/models/preview/{folder}/{root_index:[0-9]{1,4}}/{name:.*}", get_preview),
    web.get("/view_metadata/{folder}", get_metadata),
    web.get("/embeddings", get_embeddings),
)
