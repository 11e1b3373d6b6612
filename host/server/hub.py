"""The WebSockets: who listens, and sending to them from any thread."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import struct
from collections.abc import Iterator
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
MAX_BACKLOG = 5_000  # messages; a client that reads none of them is let go
MAX_PREVIEW_BACKLOG = 8  # a slow line gets fewer previews, not late ones
PREVIEW_QUALITY = 90
PING_S = 30.0

# Binary frames start with their type.
_PLAIN_PREVIEW, _PREVIEW_WITH_PLACE, _JPEG = 1, 4, 1


@dataclass(eq=False)
class _Client:
    """One open WebSocket. Several may share a `sid`, like a tab that was duplicated."""

    sid: str
    socket: web.WebSocketResponse
    backlog: asyncio.Queue[str | bytes] = field(default_factory=asyncio.Queue)
    features: dict[str, Any] = field(default_factory=dict)
    wants_logs: bool = False


class Hub:
    def __init__(self) -> None:
        self._clients: set[_Client] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """From here on `send` reaches the clients of this loop."""
        self._loop = loop

    async def close(self) -> None:
        self._loop = None
        for client in list(self._clients):
            await client.socket.close(code=1001, message=b"The server stops.")

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
        self, request: web.Request, greeting: list[tuple[str, dict[str, Any]]]
    ) -> web.WebSocketResponse:
        """One client's connection; `greeting` is what it hears first, given its `sid`."""
        socket = web.WebSocketResponse(heartbeat=PING_S, max_msg_size=MAX_MESSAGE_BYTES)
        await socket.prepare(request)
        client = _Client(request.query.get("clientId") or uuid4().hex, socket)
        for kind, data in greeting:
            more = {"sid": client.sid} if kind == "status" else {}
            client.backlog.put_nowait(_text(kind, {**data, **more}))
        self._clients.add(client)
        sender = asyncio.create_task(self._deliver(client))
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
                client.backlog.put_nowait(_text("feature_flags", FEATURES))

    async def _deliver(self, client: _Client) -> None:
        with suppress(ConnectionError):
            while True:
                message = await client.backlog.get()
                if isinstance(message, str):
                    await client.socket.send_str(message)
                else:
                    await client.socket.send_bytes(message)

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
        if client.backlog.qsize() >= MAX_BACKLOG:
            logger.warning("a client does not read its messages and is let go")
            self._clients.discard(client)
            asyncio.get_running_loop().create_task(client.socket.close())
            return
        client.backlog.put_nowait(message)


def _text(kind: str, data: dict[str, Any]) -> str:
    return json.dumps({"type": kind, "data": data}, default=str)


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, format="JPEG", quality=PREVIEW_QUALITY)
    return buffer.getvalue()
