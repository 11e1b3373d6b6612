"""WebSockets that are slow, gone, late, or talk nonsense."""

import asyncio
import socket
from typing import Any

import pytest
from aiohttp import WSMsgType
from aiohttp.test_utils import TestServer

from comfyui_wuerstchen.host.server.assemble import ServeSettings, assemble
from comfyui_wuerstchen.host.server.context import HOST
from comfyui_wuerstchen.host.server.hub import MAX_BACKLOG_BYTES

from .conftest import Running, graph

PATIENCE_S = 60.0
LARGE = "x" * (1 << 20)

HANDSHAKE = (
    "GET /ws?clientId={} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
    "Connection: Upgrade\r\nSec-WebSocket-Key: {}\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


async def connect_without_reading(server: TestServer, client_id: str = "deaf") -> socket.socket:
    """A client that has been greeted and then reads nothing any more."""
    loop = asyncio.get_running_loop()
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    assert server.port is not None
    await loop.sock_connect(client, ("127.0.0.1", server.port))
    await loop.sock_sendall(client, HANDSHAKE.format(client_id, "A" * 22 + "==").encode())
    heard = b""
    while b'"sid"' not in heard:
        heard += await loop.sock_recv(client, 4096)
    return client


async def read_to_the_end(client: socket.socket) -> int:
    """How many bytes came before the connection was gone."""
    loop = asyncio.get_running_loop()
    count = 0
    try:
        while got := await asyncio.wait_for(loop.sock_recv(client, 1 << 16), PATIENCE_S):
            count += len(got)
    except ConnectionResetError:
        pass
    return count


async def test_a_client_that_does_not_read_is_let_go(running: Running) -> None:
    deaf = await connect_without_reading(running.server)
    reader = await running.session.ws_connect(f"{running.url}/ws?clientId=reader", max_msg_size=0)
    count = 2 * MAX_BACKLOG_BYTES // len(LARGE)
    for number in range(count):
        running.host.hub.send(None, "large", {"number": number, "text": LARGE})
        while (await reader.receive_json(timeout=PATIENCE_S))["data"].get("number") != number:
            pass  # the greeting
    assert await read_to_the_end(deaf) < MAX_BACKLOG_BYTES
    running.host.hub.send(None, "still", {"here": True})
    assert (await reader.receive_json())["type"] == "still"
    deaf.close()


async def test_closing_does_not_wait_for_clients_that_are_gone(settings: ServeSettings) -> None:
    with assemble(settings) as app:
        server = TestServer(app)
        await server.start_server()
        deaf = [await connect_without_reading(server, f"deaf{number}") for number in range(5)]
        for _ in range(8):  # less than lets them go, more than the system's buffers hold
            app[HOST].hub.send(None, "large", {"text": LARGE})
        await asyncio.wait_for(server.close(), PATIENCE_S / 4)
        app[HOST].hub.send(None, "late", {})  # nobody is there, and nothing happens
        for client in deaf:
            client.close()


async def test_a_message_of_many_megabytes_arrives(running: Running) -> None:
    reader = await running.session.ws_connect(f"{running.url}/ws?clientId=a", max_msg_size=0)
    text = "ü" * (2 * MAX_BACKLOG_BYTES)
    running.host.hub.send("a", "large", {"text": text})
    while (message := await reader.receive_json())["type"] != "large":
        pass
    assert message["data"]["text"] == text


@pytest.mark.parametrize(
    "said",
    [
        "",
        "nonsense",
        "[1, 2]",
        '{"type": "feature_flags", "data": 7}',
        '{"type": "feature_flags"}',
        '{"type": ["feature_flags"]}',
        '{"type": NaN}',
        "[" * 100_000,
        b"\0\1\2",
    ],
)
async def test_nonsense_is_ignored(running: Running, said: str | bytes) -> None:
    listener = await running.listen("a", flags=False)
    if isinstance(said, str):
        await listener.socket.send_str(said)
    else:
        await listener.socket.send_bytes(said)
    await listener.socket.send_json({"type": "feature_flags", "data": {}})
    await listener.until("feature_flags")
    status, answer = await running.submit(graph(n1=("Show", {"value": 1})), client_id="a")
    assert status == 200
    await listener.until_done(answer["prompt_id"])


async def test_a_message_that_is_too_large_ends_only_its_connection(running: Running) -> None:
    talker = await running.session.ws_connect(f"{running.url}/ws?clientId=a")
    listener = await running.listen("b")
    await talker.send_str("x" * (2 << 20))
    while (message := await talker.receive(timeout=PATIENCE_S)).type is WSMsgType.TEXT:
        pass
    assert message.type is WSMsgType.CLOSE and message.data == 1009
    await listener.until("feature_flags")
    assert await running.get("/prompt") == {"exec_info": {"queue_remaining": 0}}


async def test_clients_that_come_at_any_time_know_the_queue(running: Running) -> None:
    """Each client's last status is the truth, whenever it came."""
    listeners = []
    prompt = graph(n1=("Slow", {"steps": 2}), n2=("PreviewImage", {"images": ["1", 0]}))
    ids = []
    for number in range(12):
        prompt["1"]["inputs"]["steps"] = 2 + number
        status, answer = await running.submit(prompt, client_id="0")
        assert status == 200
        ids.append(answer["prompt_id"])
        listeners.append(await running.listen(f"{number}"))
    await listeners[0].until_done(ids[-1])
    for listener in listeners:
        running.host.hub.send(None, "mark", {})
        await listener.until("mark")
        told = [message["data"] for message in listener.heard if message["type"] == "status"]
        assert told[-1]["status"]["exec_info"]["queue_remaining"] == 0
        assert "sid" in told[0] and not any("sid" in one for one in told[1:])


async def test_two_tabs_of_one_client_both_hear(running: Running) -> None:
    """The browser duplicates a tab with its client id."""
    tabs = [await running.listen("same") for _ in range(2)]
    stranger = await running.listen("other")
    status, answer = await running.submit(graph(n1=("Show", {"value": 1})), client_id="same")
    assert status == 200
    for tab in tabs:
        await tab.until_done(answer["prompt_id"])
    running.host.hub.send(None, "mark", {})
    await stranger.until("mark")
    heard: list[Any] = [message["type"] for message in stranger.heard]
    assert set(heard) == {"status", "feature_flags", "mark"}
    await tabs[0].socket.close()
    status, answer = await running.submit(graph(n1=("Show", {"value": 2})), client_id="same")
    assert status == 200
    await tabs[1].until_done(answer["prompt_id"])
