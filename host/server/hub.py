"""The WebSockets: who listens, and sending to them from any thread."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from aiohttp import WSMsgType, web
from PIL import Image

from .features import FEATURES
from .log_lines import LogEntry

logger = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 1 << 20
MAX_BACKLOG_BYTES = 16 << 20  # a client that leaves more unread is let go
MAX_PREVIEW_BACKLOG = 8  # a slow line gets fewer previews, not late ones
PREVIEW_QUALITY = 90
PING_S = 30.0
GOODBYE_S = 1.0  # for all clients together

# Binary frames start with their type.
_PLAIN_PREVIEW, _PREVIEW_WITH_PLACE, _JPEG = 1, 4, 1


@dataclass(eq=False)
class _Client:
    """One open WebSocket. Several may share a `sid`, like a tab that was duplicated."""

    sid: str
    request: web.Request
    socket: web.WebSocketResponse
    backlog: asyncio.Queue[str | bytes] = field(default_factory=asyncio.Queue)
    backlog_bytes: int = 0
    features: dict[str, Any] = field(default_factory=dict)
    wants_logs: bool = False

    async def deliver(self) -> None:
        """Sends the backlog until the connection ends."""
        with suppress(ConnectionError):
            while True:
                message = await self.backlog.get()
                self.backlog_bytes -= len(message)
                if isinstance(message, str):
                    await self.socket.send_str(message)
                else:
                    await self.socket.send_bytes(message)

    def drop(self) -> None:
        """Ends the connection at once: who does not read does not hear a goodbye either."""
        if self.request.transport is not None:
            self.request.transport.abort()


class Hub:
    def __init__(self) -> None:
        self._clients: set[_Client] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """From here on `send` reaches the clients of this loop."""
        self._loop = loop

    async def close(self) -> None:
        self._loop = None
        clients = list(self._clients)
        goodbyes = [
            asyncio.create_task(client.socket.close(code=1001, message=b"The server stops."))
            for client in clients
        ]
        if goodbyes:
            await asyncio.wait(goodbyes, timeout=GOODBYE_S)
        for client in clients:
            client.drop()

    def send(self, sid: str | None, kind: str, data: dict[str, Any]) -> None:
        """Sends a message to a client, or with None to all; from any thread, never waits.

        A `preview` goes as a picture, everything else as JSON.
        """
        if kind == "preview":
            place = {key: value for key, value in data.items() if key != "image"}
            picture = _jpeg(data["image"])
            self._in_loop(self._send_preview, sid, place, picture)
        else:
            self._in_loop(self._send_text, sid, _text(kind, data))

    def send_log(self, entry: LogEntry) -> None:
        self._in_loop(self._send_log, _text("logs", {"entries": [entry]}))

    def subscribe_logs(self, sid: str, enabled: bool) -> None:
        for client in self._of(sid):
            client.wants_logs = enabled

    async def serve(
        self,
        request: web.Request,
        greeting: Callable[[], Iterable[tuple[str, dict[str, Any]]]],
    ) -> web.WebSocketResponse:
        """One client's connection; `greeting()` is what it hears first, given its `sid`."""
        socket = web.WebSocketResponse(
            heartbeat=PING_S,
            max_msg_size=MAX_MESSAGE_BYTES,
            compress=False,  # what is large is JPEG already
        )
        await socket.prepare(request)
        client = _Client(request.query.get("clientId") or uuid4().hex, request, socket)
        # Without a pause from the greeting on, so that the client misses nothing after it.
        for kind, data in greeting():
            more = {"sid": client.sid} if kind == "status" else {}
            self._put(client, _text(kind, {**data, **more}))
        self._clients.add(client)
        sender = asyncio.create_task(client.deliver())
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    self._hear(client, message.data)
        finally:
            self._clients.discard(client)
            sender.cancel()
        return socket

    def _hear(self, client: _Client, text: str) -> None:
        with suppress(ValueError, RecursionError):
            message = json.loads(text)
            if isinstance(message, dict) and message.get("type") == "feature_flags":
                flags = message.get("data")
                client.features = flags if isinstance(flags, dict) else {}
                self._put(client, _text("feature_flags", FEATURES))

    def _in_loop(self, act: Any, *arguments: Any) -> None:
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # the loop has been closed meanwhile
                loop.call_soon_threadsafe(act, *arguments)

    def _of(self, sid: str | None) -> Iterator[_Client]:
        return (client for client in list(self._clients) if sid in (None, client.sid))

    def _send_text(self, sid: str | None, text: str) -> None:
        for client in self._of(sid):
            self._put(client, text)

    def _send_log(self, text: str) -> None:
        for client in self._of(None):
            if client.wants_logs:
                self._put(client, text)

    def _send_preview(self, sid: str | None, place: dict[str, Any], picture: bytes) -> None:
        about = json.dumps({**place, "image_type": "image/jpeg"}).encode()
        with_place = struct.pack(">II", _PREVIEW_WITH_PLACE, len(about)) + about + picture
        plain = struct.pack(">II", _PLAIN_PREVIEW, _JPEG) + picture
        for client in self._of(sid):
            if client.backlog.qsize() < MAX_PREVIEW_BACKLOG:
                knows = client.features.get("supports_preview_metadata") is True
                self._put(client, with_place if knows else plain)

    def _put(self, client: _Client, message: str | bytes) -> None:
        if client.backlog_bytes > MAX_BACKLOG_BYTES:
            logger.warning("a client does not read its messages and is let go")
            self._clients.discard(client)
            client.drop()
            return
        client.backlog_bytes += len(message)
        client.backlog.put_nowait(message)


def _text(kind: str, data: dict[str, Any]) -> str:
    return json.dumps({"type": kind, "data": data}, default=str)


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, format="JPEG", quality=PREVIEW_QUALITY)
    return buffer.getvalue()
