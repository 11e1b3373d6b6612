"""Fixtures of the server's tests: a running server over a data folder of its own."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType
from aiohttp.test_utils import TestServer

from comfyui_wuerstchen.host.registry import Nodes
from comfyui_wuerstchen.host.server.assemble import ServeSettings, assemble
from comfyui_wuerstchen.host.server.context import HOST, Host

from ..host.conftest import _load_toys
from .processes import Nursery

Prompt = dict[str, dict[str, Any]]


def graph(**nodes: tuple[str, dict[str, Any]]) -> Prompt:
    """An API prompt from `n1=("Class", {inputs})`; the ids are the names without the `n`."""
    return {
        name.removeprefix("n"): {"class_type": class_type, "inputs": inputs}
        for name, (class_type, inputs) in nodes.items()
    }


@dataclass
class Listener:
    """A client's WebSocket; keeps what it heard."""

    socket: ClientWebSocketResponse
    heard: list[dict[str, Any]] = field(default_factory=list)
    pictures: list[bytes] = field(default_factory=list)

    async def next(self) -> dict[str, Any]:
        """The next JSON message; binary ones on the way are kept in `pictures`."""
        while True:
            message = await self.socket.receive(timeout=60)
            if message.type is WSMsgType.BINARY:
                self.pictures.append(message.data)
                continue
            assert message.type is WSMsgType.TEXT, message
            self.heard.append(json.loads(message.data))
            return self.heard[-1]

    async def until(self, kind: str, **data: Any) -> dict[str, Any]:
        """Reads on to a message of this type whose data has these values; returns its data."""
        while True:
            message = await self.next()
            got = message["data"]
            if message["type"] == kind and all(got.get(k) == v for k, v in data.items()):
                return got

    async def until_done(self, prompt_id: str) -> None:
        await self.until("executing", node=None, prompt_id=prompt_id)


@dataclass
class Running:
    """A server and a client of it. Paths are tried as given, under the server's address."""

    server: TestServer
    session: ClientSession
    host: Host

    @property
    def url(self) -> str:
        return str(self.server.make_url("/")).rstrip("/")

    async def get(self, path: str, **options: Any) -> Any:
        """The JSON of a 200 answer."""
        async with self.session.get(f"{self.url}{path}", **options) as answer:
            assert answer.status == 200, (answer.status, await answer.text())
            return await answer.json()

    async def ask(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        """Status and JSON (or text) of any answer."""
        async with self.session.request(method, f"{self.url}{path}", **options) as answer:
            text = await answer.text()
            is_json = answer.content_type == "application/json"
            return answer.status, json.loads(text) if is_json else text

    async def submit(self, prompt: Any, **more: Any) -> tuple[int, Any]:
        return await self.ask("POST", "/prompt", json={"prompt": prompt, **more})

    async def listen(self, client_id: str = "tester", flags: bool = True) -> Listener:
        socket = await self.session.ws_connect(f"{self.url}/ws?clientId={client_id}")
        if flags:
            await socket.send_json(
                {"type": "feature_flags", "data": {"supports_preview_metadata": True}}
            )
        return Listener(socket)


@asynccontextmanager
async def serving(settings: ServeSettings, nodes: Nodes | None = None) -> AsyncIterator[Running]:
    with assemble(settings, nodes) as app:
        async with TestServer(app) as server, ClientSession() as session:
            yield Running(server, session, app[HOST])


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Where servers in processes of their own come from."""
    started = Nursery()
    yield started
    started.close()


@pytest.fixture
def settings(tmp_path: Path) -> ServeSettings:
    return ServeSettings(host="127.0.0.1", port=0, data=tmp_path / "data")


@pytest.fixture
async def running(settings: ServeSettings) -> AsyncIterator[Running]:
    """A server that knows the toy nodes and the stock ones."""
    async with serving(settings, _load_toys().TOY_NODES) as started:
        yield started


@pytest.fixture
async def real(settings: ServeSettings) -> AsyncIterator[Running]:
    """A server with the project's own nodes and the demo checkpoint."""
    async with serving(settings) as started:
        yield started
