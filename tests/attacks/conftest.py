"""Fixtures of the attacks: a server in a thread of its own, and byte for byte requests to it."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPMessage, HTTPResponse
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from aiohttp import web

from comfyui_wuerstchen.host.server.assemble import ServeSettings, assemble

from ..paths import ROOT

SECRET = "what only this machine may know"
SECRETS = ("secret.txt", "secret.png", "secret.json", "secret.latent", "secret.safetensors")
# Where a way out of a folder could lead: the secrets, this repository, the machine's accounts, the
# host's own database.
TELLTALES = (SECRET, "Traceback", 'File "', str(ROOT), "root:x:0:0", "SQLite format 3")
TIMEOUT_S = 60


@dataclass(frozen=True)
class Answer:
    status: int
    headers: HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Target:
    """A running server. `data` is its data folder, beside which lies a file with SECRET."""

    port: int
    data: Path

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def send(self, request: bytes, method: str = "GET") -> Answer:
        """The answer to these very bytes; no answer may tell the secret, or where things lie."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT_S) as line:
            line.sendall(request)
            response = HTTPResponse(line, method=method)
            response.begin()
            answer = Answer(response.status, response.msg, response.read())
        told = str(answer.headers).encode(errors="replace") + answer.body
        for word in (*TELLTALES, str(self.data.parent)):
            assert word.encode() not in told, (request[:200], told[:500])
        return answer

    def kept(self) -> dict[str, bytes]:
        """Every file of the machine except where uploads and user files may go."""
        open_folders = {"input", "output", "user/temp", "user/default"}
        return {
            str(path): path.read_bytes()
            for path in self.data.parent.rglob("*")
            if path.is_file()
            and not any(path.is_relative_to(self.data / name) for name in open_folders)
            and not path.name.startswith("wuerstchen.db")
        }

    def ask(
        self, method: str, path: str, body: bytes | None = None, **headers: str | None
    ) -> Answer:
        """`Sec_Fetch_Site="…"` gives that header; None leaves one out."""
        given: dict[str, str | None] = {"Host": self.host, "Connection": "close"}
        if body is not None:
            given["Content-Length"] = str(len(body))
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [f"{method} {path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in given.items() if value is not None]
        head = "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape")
        return self.send(head + (body or b""), method)

    def get(self, path: str, **headers: str | None) -> Answer:
        return self.ask("GET", path, **headers)

    def post(self, path: str, body: Any, **headers: str | None) -> Answer:
        """`body` as JSON, or as it is."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.ask("POST", path, data, **headers)

    def upload(self, filename: str, content: bytes, path: str = "/upload/image", **fields: str):
        line = f'Content-Disposition: form-data; name="image"; filename="{filename}"'
        return self.post_form(path, line, content, fields)

    def post_form(self, path: str, line: str, content: bytes, fields: dict[str, str]) -> Answer:
        """A form whose file has this Content-Disposition line."""
        body = b"".join(
            f'--cut\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
            for key, value in fields.items()
        )
        body += f"--cut\r\n{line}\r\n\r\n".encode() + content + b"\r\n--cut--\r\n"
        return self.post(path, body, Content_Type="multipart/form-data; boundary=cut")

    def finished(self, prompt_id: str) -> Any:
        """The history's entry of a prompt, once it has run."""
        deadline = time.monotonic() + TIMEOUT_S
        while not (entry := self.get(f"/history/{prompt_id}").json):
            assert time.monotonic() < deadline
        return entry[prompt_id]

    def is_alive(self) -> bool:
        return self.get("/queue").status == 200


@contextmanager
def serve(settings: ServeSettings) -> Iterator[Target]:
    """The server on a free port, in a thread with its own event loop."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start(app: web.Application) -> tuple[web.AppRunner, int]:
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner, runner.addresses[0][1]

    try:
        with assemble(settings) as app:
            started = asyncio.run_coroutine_threadsafe(start(app), loop)
            runner, port = started.result(TIMEOUT_S)
            yield Target(port, settings.data)
            asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(TIMEOUT_S)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(TIMEOUT_S)
        loop.close()


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    data = tmp_path_factory.mktemp("machine") / "data"
    data.mkdir()
    for folder in (data.parent, data):
        for name in SECRETS:
            (folder / name).write_text(SECRET)
    (data / "user").mkdir()
    (data / "user" / "settings.json").write_text(json.dumps({"Hidden": SECRET}))
    with serve(ServeSettings(host="127.0.0.1", port=0, data=data)) as started:
        link_to_secrets(data)
        yield started


def link_to_secrets(data: Path) -> None:
    """In every folder that is served: to each secret, and to the folder of them all."""
    for place in ("input", "output", "user/temp", "user/default", "models"):
        folder = data / place
        folder.mkdir(exist_ok=True)
        for name in SECRETS:
            (folder / f"link-{name}").symlink_to(data / name)
        (folder / "way-out").symlink_to(data.parent, target_is_directory=True)
