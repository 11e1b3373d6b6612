"""The queue and the history as ComfyUI's API clients know them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from aiohttp import web

from ..answers import read_object, refuse
from ..context import host_of
from ..records import FINISHED, history_entry, queue_entry
from ..worker import status_of


async def get_queue(request: web.Request) -> web.Response:
    running, waiting = await asyncio.to_thread(host_of(request).store.queue)
    return web.json_response(
        {
            "queue_running": [queue_entry(job) for job in running],
            "queue_pending": [queue_entry(job) for job in waiting],
        }
    )


async def get_history(request: web.Request) -> web.Response:
    limit = whole_number(request, "max_items")
    offset = whole_number(request, "offset")
    if limit is not None and limit < 0:
        refuse(400, "max_items must not be negative.")
    jobs = await asyncio.to_thread(
        host_of(request).store.history, limit, -1 if offset is None else offset
    )
    return web.json_response({job.id: history_entry(job) for job in jobs})


async def get_history_of_one(request: web.Request) -> web.Response:
    job = await asyncio.to_thread(host_of(request).store.get, request.match_info["prompt_id"])
    finished = job is not None and job.status in FINISHED
    return web.json_response({job.id: history_entry(job)} if finished else {})


async def post_queue(request: web.Request) -> web.Response:
    host = host_of(request)
    await _drop(request, host.store.drop_pending)
    host.hub.send(None, "status", await asyncio.to_thread(status_of, host.store))
    return web.Response()


async def post_history(request: web.Request) -> web.Response:
    await _drop(request, host_of(request).store.drop_history)
    return web.Response()


async def _drop(request: web.Request, drop: Callable[[Collection[str] | None], list[str]]) -> None:
    """`{"clear": true}` drops all, `{"delete": [ids]}` those."""
    body = await read_object(request)
    ids = body.get("delete", [])
    if not (isinstance(ids, list) and all(isinstance(one, str) for one in ids)):
        refuse(400, "delete must be a list of prompt ids.")
    if body.get("clear"):
        await asyncio.to_thread(drop, None)
    elif ids:
        await asyncio.to_thread(drop, ids)


def whole_number(request: web.Request, name: str) -> int | None:
    """A whole number of the query, None when it is not there. Raises Refusal."""
    text = request.query.get(name)
    if text is None:
        return None
    try:
        number = int(text)
    except ValueError:
        refuse(400, f"{name} must be a whole number.")
    if abs(number) >= 1 << 31:
        refuse(400, f"{name} is too large.")
    return number


ROUTES = (
    web.get("/queue", get_queue),
    web.post("/queue", post_queue),
    web.get("/history", get_history),
    web.post("/history", post_history),
    web.get("/history/{prompt_id}", get_history_of_one),
)
