"""Pictures and other files of the input, output and temp folders."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from aiohttp import web
from PIL import Image, PngImagePlugin

from ....nodes.runtime import use
from ...folders import Folders, HostSurroundings
from ...stock.images import FORMATS
from ...stock.reading import InputFileError, find_input
from ..answers import parse_json, refuse
from ..context import host_of
from ..paths import file_inside, inside, is_hidden
from ..pictures import only_alpha, preview, read_picture, without_alpha
from ..uploads import Upload, keep, receive_upload
from ..user_files import filename, send_user_file

KINDS = ("input", "output", "temp")
COMPRESS_LEVEL = 4


async def get_view(request: web.Request) -> web.StreamResponse:
    query = request.query
    if "filename" not in query:
        refuse(404, "Say which file, as ?filename=….")
    path = await asyncio.to_thread(
        _find,
        host_of(request).folders,
        query["filename"],
        query.get("subfolder", ""),
        query.get("type", "output"),
    )
    channel = query.get("channel", "rgba")
    if "preview" in query:
        return await _send_picture(path, preview, path, query["preview"], query.get("channel", ""))
    if channel == "rgb":
        return await _send_picture(path, without_alpha, path)
    if channel == "a":
        return await _send_picture(path, only_alpha, path)
    return send_user_file(path)


def _find(folders: Folders, name: str, subfolder: str, kind: str) -> Path:
    """Raises Refusal: 400 for a name or type that cannot be, 403 for a subfolder that leads out,
    404 where there is no such file."""
    name, kind = _annotated(name, kind)
    if not name or name.startswith("/") or ".." in name or kind not in KINDS:
        refuse(400, f"Ask for a file's name, and a type of {', '.join(KINDS)}.")
    inside(_folder(folders, kind), subfolder)
    # As in ComfyUI, a folder counts only when it is named apart.
    name = PurePosixPath(name).name
    try:
        if is_hidden(subfolder, name):
            raise InputFileError(name)
        with use(HostSurroundings(folders)):
            return find_input(f"{PurePosixPath(subfolder) / name} [{kind}]")
    except InputFileError:
        refuse(404, f"There is no such file in the {kind} folder.")


def _annotated(name: str, kind: str) -> tuple[str, str]:
    """`a.png [temp]` is the name and the type in one."""
    for one in KINDS:
        if name.endswith(f"[{one}]"):
            return name.removesuffix(f"[{one}]").rstrip(), one
    return name, kind


def _folder(folders: Folders, kind: str) -> Path:
    return {"input": folders.input, "output": folders.output, "temp": folders.temp}[kind]


async def _send_picture(
    path: Path, make: Callable[..., tuple[bytes, str]], *arguments: Any
) -> web.Response:
    body, content_type = await asyncio.to_thread(make, *arguments)
    headers = {"Content-Disposition": f"inline; {filename(path.name)}"}
    return web.Response(body=body, content_type=content_type, headers=headers)


async def post_image(request: web.Request) -> web.Response:
    async with receive_upload(request, "image") as upload:
        return await _keep(request, upload, upload.path)


async def post_mask(request: web.Request) -> web.Response:
    """A picture whose transparency becomes that of the picture `original_ref`."""
    folders = host_of(request).folders
    async with receive_upload(request, "image") as upload:
        if Path(upload.filename).suffix.lower() != ".png":
            refuse(400, "A masked picture is kept as a PNG; give it such a name.")
        masked = upload.path.with_name("masked")
        await asyncio.to_thread(_mask, folders, upload, masked)
        return await _keep(request, upload, masked)


def _mask(folders: Folders, upload: Upload, target: Path) -> None:
    reference = parse_json(upload.fields.get("original_ref", ""))
    if not isinstance(reference, dict):
        refuse(400, "original_ref must be an object with a filename.")
    name, subfolder, kind = (
        reference.get(key, default)
        for key, default in (("filename", ""), ("subfolder", ""), ("type", "output"))
    )
    if not (isinstance(name, str) and isinstance(subfolder, str) and isinstance(kind, str)):
        refuse(400, "original_ref must be an object with a filename.")
    path = _find(folders, name, subfolder, kind)
    picture, mask = read_picture(path).convert("RGBA"), read_picture(upload.path).convert("RGBA")
    if picture.size != mask.size:
        refuse(400, f"The mask is {mask.size}, its picture {picture.size}; make them equal.")
    picture.putalpha(mask.getchannel("A"))
    about = PngImagePlugin.PngInfo()
    for key, text in _texts(path).items():
        about.add_text(key, text)
    picture.save(target, format="PNG", compress_level=COMPRESS_LEVEL, pnginfo=about)


def _texts(path: Path) -> dict[str, str]:
    """The graph and whatever else a PNG says of itself."""
    with Image.open(path, formats=FORMATS) as file:
        return dict(getattr(file, "text", {}))


async def _keep(request: web.Request, upload: Upload, source: Path) -> web.Response:
    kind = upload.fields.get("type", "input")
    if kind not in KINDS:
        refuse(400, f"The type of an upload is one of {', '.join(KINDS)}.")
    root = _folder(host_of(request).folders, kind)
    subfolder = upload.fields.get("subfolder", "")
    if is_hidden(subfolder, upload.filename):
        refuse(400, "No part of a name may start with a dot.")
    overwrite = upload.fields.get("overwrite") in ("true", "1")
    target = file_inside(root, subfolder, upload.filename)
    kept = await asyncio.to_thread(keep, source, target, overwrite)
    place = kept.parent.relative_to(root.resolve()).as_posix()
    answer = {"name": kept.name, "subfolder": "" if place == "." else place, "type": kind}
    return web.json_response(answer)


ROUTES = (
    web.get("/view", get_view),
    web.post("/upload/image", post_image),
    web.post("/upload/mask", post_mask),
)
