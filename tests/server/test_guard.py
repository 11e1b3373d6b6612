"""What every answer carries, and how errors look from outside."""

import errno
import logging
from base64 import b64encode
from collections.abc import AsyncIterator
from hashlib import sha256

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from comfyui_wuerstchen.host.server.answers import read_json, refuse
from comfyui_wuerstchen.host.server.guard import Guard, content_policy, make_middlewares

EVERYWHERE = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
FAILURES = {
    "refusal": (403, {"error": "Not this one."}),
    "mistake": (500, {"error": "The server failed at this; its log says why."}),
    "full": (507, {"error": "The disk is full; make room and try again."}),
    "missing": (500, {"error": "The server failed at this; its log says why."}),
    "gone": (400, {"error": "The request broke off, or its body is not what its headers say."}),
}


async def fail(request: web.Request) -> web.Response:
    match request.match_info["how"]:
        case "refusal":
            refuse(403, "Not this one.")
        case "full":
            raise OSError(errno.ENOSPC, "No space left on device", "/home/someone/output")
        case "missing":
            raise FileNotFoundError(errno.ENOENT, "No such file", "/home/someone/output")
        case "gone":
            raise ConnectionResetError("/home/someone")
        case "move":
            raise web.HTTPFound("/elsewhere")
    raise RuntimeError("mistake in /home/someone")


async def echo(request: web.Request) -> web.Response:
    return web.json_response(await read_json(request))


@pytest.fixture
async def client() -> AsyncIterator[TestClient]:
    app = web.Application(middlewares=make_middlewares(Guard()))
    app.add_routes([web.get("/fail/{how}", fail), web.post("/echo", echo)])
    async with TestClient(TestServer(app)) as started:
        yield started


@pytest.mark.parametrize("how", FAILURES)
async def test_an_error_is_one_sentence(client, how: str, caplog) -> None:
    with caplog.at_level(logging.ERROR):
        answer = await client.get(f"/fail/{how}")
    status, expected = FAILURES[how]
    assert (answer.status, await answer.json()) == (status, expected)
    assert ("Traceback" in caplog.text) == (status == 500)
    assert EVERYWHERE.items() <= dict(answer.headers).items()
    assert "script-src 'self'" in answer.headers["Content-Security-Policy"]


async def test_what_aiohttp_raises_keeps_its_meaning(client) -> None:
    moved = await client.get("/fail/move", allow_redirects=False)
    assert (moved.status, moved.headers["Location"]) == (302, "/elsewhere")
    wrong = await client.post("/fail/move")
    assert (wrong.status, wrong.headers["Allow"]) == (405, "GET,HEAD")
    missing = await client.get("/nothing")
    assert (missing.status, await missing.text()) == (404, "Not Found")
    assert all(EVERYWHERE.items() <= dict(one.headers).items() for one in (moved, wrong, missing))


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"a": [1, 2.5, null, "\xc3\xbc"]}', 200),
        (b"1" * 4000, 200),
        (b"1" * 10_000, 400),
        (b"", 400),
        (b"{'a': 1}", 400),
        (b'{"a": NaN}', 400),
        (b"[-Infinity]", 400),
        (b"[1e999]", 400),
        (b'"\\ud800"', 400),
        (b'{"\\udfff": 1}', 400),
        (b'"\xff"', 400),
        (b"[" * 64 + b"]" * 64, 200),
        (b"[" * 65 + b"]" * 65, 400),
        (b"[" * 1_000_000, 400),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, 400),
        (b'"' + b"x" * (17 << 20) + b'"', 413),
    ],
    ids=lambda value: str(value[:20] if isinstance(value, bytes) else value),
)
async def test_json_within_limits(client, body: bytes, status: int) -> None:
    assert (await client.post("/echo", data=body)).status == status


async def test_a_body_without_a_length_is_limited_too(client) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * (1 << 20)

    assert (await client.post("/echo", data=chunks())).status == 413


@pytest.mark.parametrize(
    ("listens_on", "allowed", "host", "known"),
    [
        ("127.0.0.1", (), "127.0.0.1:8188", True),
        ("127.0.0.1", (), "localhost", True),
        ("127.0.0.1", (), "LOCALHOST:1", True),
        ("127.0.0.1", (), "[::1]:8188", True),
        ("::1", (), "[::1]", True),
        ("127.0.0.2", (), "127.0.0.2:8188", True),
        ("127.0.0.1", (), "0.0.0.0:8188", False),
        ("127.0.0.1", (), "192.168.1.2:8188", False),
        ("127.0.0.1", (), "evil.example:8188", False),
        ("127.0.0.1", (), "127.0.0.1.evil.example", False),
        ("127.0.0.1", (), "evil.example#@127.0.0.1", False),
        ("127.0.0.1", (), "localhost:80:80", False),
        ("127.0.0.1", (), "localhost:", False),
        ("127.0.0.1", (), "localhost.", False),
        ("127.0.0.1", (), "2130706433", False),
        ("127.0.0.1", (), "", False),
        ("127.0.0.1", ("my.box",), "My.Box:8188", True),
        ("127.0.0.1", ("My.Box:443",), "my.box", True),
        ("0.0.0.0", (), "192.168.1.2:8188", True),
        ("0.0.0.0", (), "[fe80::1]:8188", True),
        ("0.0.0.0", (), "localhost:8188", True),
        ("0.0.0.0", (), "0.0.0.0:8188", False),
        ("0.0.0.0", (), "[::]:8188", False),
        ("0.0.0.0", (), "evil.example:8188", False),
        ("0.0.0.0", ("my.box",), "my.box:8188", True),
        ("192.168.1.2", (), "192.168.1.2:8188", True),
        ("my.box", (), "my.box:8188", True),
    ],
)
def test_the_names_it_goes_by(
    listens_on: str, allowed: tuple[str, ...], host: str, known: bool
) -> None:
    assert Guard.for_address(listens_on, allowed).knows(host) == known


def test_only_the_pages_own_scripts_run() -> None:
    page = '<script>one()</script><script type="module" src="/x.js"></script><p onclick="no()">'
    policy = dict(part.split(" ", 1) for part in content_policy(page).split("; "))
    known = b64encode(sha256(b"one()").digest()).decode()
    assert policy["script-src"] == f"'self' 'wasm-unsafe-eval' blob: 'sha256-{known}'"
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'self'"
    assert policy["connect-src"] == "'self' data: blob:"
    assert "http" not in content_policy(page) and "*" not in content_policy(page)
