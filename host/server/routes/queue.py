"""The queue and the history as ComfyUI's API clients know them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection

from aiohttp import web

from ..answers import read_object, refuse
from ..context import host_of
from ..store import JobStore

BATCH = 50  # jobs


async def get_queue(request: web.Request) -> web.Response:
    store = host_of(request).store
    running, waiting = await asyncio.to_thread(store.queue)

    async def body() -> AsyncIterator[bytes]:
        yield b'{"queue_running": ['
        async for entries in _in_batches(store.queue_entries, running):
            yield entries
        yield b'], "queue_pending": ['
        async for entries in _in_batches(store.queue_entries, waiting):
            yield entries
        yield b"]}"

    return _streamed(body())


async def get_history(request: web.Request) -> web.Response:
    limit = whole_number(request, "max_items")
    offset = whole_number(request, "offset")
    if limit is not None and limit < 0:
        refuse(400, "max_items must not be negative.")
    store = host_of(request).store
    ids = await asyncio.to_thread(store.history, limit, -1 if offset is None else offset)
    return _streamed(_history(store, ids))


async def get_history_of_one(request: web.Request) -> web.Response:
    return _streamed(_history(host_of(request).store, [request.match_info["prompt_id"]]))


async def _history(store: JobStore, ids: list[str]) -> AsyncIterator[bytes]:
    yield b"{"
    async for entries in _in_batches(store.history_entries, ids):
        yield entries
    yield b"}"


async def _in_batches(
    read: Callable[[list[str]], list[str]], ids: list[str]
) -> AsyncIterator[bytes]:
    """The JSON texts that `read` gives for these jobs, with commas between.

    A batch at a time: the whole history may be larger than the memory.
    """
    comma = ""
    for start in range(0, len(ids), BATCH):
        if texts := await asyncio.to_thread(read, ids[start : start + BATCH]):
            yield (comma + ", ".join(texts)).encode()
            comma = ", "


def _streamed(body: AsyncIterator[bytes]) -> web.Response:
    return web.Response(body=body, content_type="application/json", charset="utf-8")


async def post_queue(request: web.Request) -> web.Response:
    host = host_of(request)
    await _drop(request, host.store.drop_pending)
    host.worker.say_status()
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
