"""The nodes as the canvas shows them: what they are, and what their packs bring along."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from aiohttp import web

from ..answers import Refusal, refuse
from ..context import host_of
from ..frontend import frontend_folder
from ..object_info import object_info
from ..pack_contents import blueprints, script_urls, translations
from ..packs import Pack
from ..static_files import send_file
from ..templates import THUMBNAIL, find_template, template_index, template_names

INDEX = re.compile(r"index(\.[\w-]+)?\.json")  # in English, or in another language
# The canvas asks for help in its own language before it asks for the page that is there.
TRANSLATED_HELP = re.compile(r"(docs/[^/]+)/[^/]+\.md")
NUMBERED_THUMBNAIL = re.compile(rf"(.+)-\d+{re.escape(THUMBNAIL)}")


async def get_object_info(request: web.Request) -> web.Response:
    host = host_of(request)
    node_id = request.match_info.get("node_id")
    found = await asyncio.to_thread(object_info, host.nodes, host.folders, node_id)
    return web.json_response(found)


async def get_extensions(request: web.Request) -> web.Response:
    return web.json_response(await asyncio.to_thread(script_urls, host_of(request).packs))


async def get_extension_file(request: web.Request) -> web.StreamResponse:
    name, path = request.match_info["pack"], request.match_info["path"]
    pack = _find_pack(request, name)
    if pack is None:  # the canvas has extensions of its own
        return await send_file(frontend_folder(), "extensions", name, path)
    if pack.web is None:
        refuse(404, "There is no such file.")
    try:
        return await send_file(pack.web, path)
    except Refusal:
        page = TRANSLATED_HELP.fullmatch(path)
        if page is None:
            raise
        return await send_file(pack.web, f"{page[1]}.md")


async def get_stock_help(request: web.Request) -> web.Response:
    """No page: the canvas then shows what the node says of itself."""
    return web.Response(status=204)


async def get_translations(request: web.Request) -> web.Response:
    return web.json_response(await asyncio.to_thread(translations, host_of(request).packs))


async def get_workflow_templates(request: web.Request) -> web.Response:
    """Other people's: our own workflows are among the canvas's own templates."""
    _, *others = host_of(request).packs
    named = {pack.name: await asyncio.to_thread(template_names, pack) for pack in others}
    return web.json_response({name: templates for name, templates in named.items() if templates})


async def get_workflow_template(request: web.Request) -> web.StreamResponse:
    pack = _find_pack(request, request.match_info["pack"])
    if pack is None:
        refuse(404, "There is no such pack of nodes.")
    return await _send_template(pack, request.match_info["file"])


async def get_own_template(request: web.Request) -> web.StreamResponse:
    """The canvas's own templates: their index, their workflows, and their pictures by number."""
    host = host_of(request)
    own, *_ = host.packs
    file = request.match_info["file"]
    if file == "index_logo.json":
        return web.json_response({})
    if INDEX.fullmatch(file):
        return web.json_response(await asyncio.to_thread(template_index, own, host.nodes))
    picture = NUMBERED_THUMBNAIL.fullmatch(file)
    return await _send_template(own, picture[1] + THUMBNAIL if picture else file)


async def get_blueprints(request: web.Request) -> web.Response:
    found = await asyncio.to_thread(blueprints, host_of(request).packs)
    return web.json_response({key: about for key, (about, _) in found.items()})


async def get_blueprint(request: web.Request) -> web.Response:
    found = await asyncio.to_thread(blueprints, host_of(request).packs)
    about, path = found.get(request.match_info["id"], ({}, Path()))
    if not about:
        refuse(404, "There is no such blueprint.")
    data = await asyncio.to_thread(path.read_text, encoding="utf-8")
    return web.json_response({**about, "data": data})


async def get_node_replacements(request: web.Request) -> web.Response:
    return web.json_response({})


def _find_pack(request: web.Request, name: str) -> Pack | None:
    return next((pack for pack in host_of(request).packs if pack.name == name), None)


async def _send_template(pack: Pack, file_name: str) -> web.StreamResponse:
    path = await asyncio.to_thread(find_template, pack, file_name)
    if path is None:
        refuse(404, "There is no such template.")
    return await send_file(path.parent, path.name)


ROUTES = (
    web.get("/object_info", get_object_info),
    web.get("/object_info/{node_id}", get_object_info),
    web.get("/extensions", get_extensions),
    web.get("/extensions/{pack}/{path:.+}", get_extension_file),
    web.get("/docs/{path:.+}", get_stock_help),
    web.get("/i18n", get_translations),
    web.get("/workflow_templates", get_workflow_templates),
    web.get("/workflow_templates/{pack}/{file}", get_workflow_template),
    web.get("/templates/{file}", get_own_template),
    web.get("/global_subgraphs", get_blueprints),
    web.get("/global_subgraphs/{id}", get_blueprint),
    web.get("/node_replacements", get_node_replacements),
)
