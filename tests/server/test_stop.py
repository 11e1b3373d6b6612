"""Ends and starts that people bring about: Ctrl-C, a second server, a port that is taken."""

import signal
import socket
import sys
from pathlib import Path

import pytest
from aiohttp import ClientSession

from ..paths import WORKFLOWS
from .conftest import Listener, graph
from .processes import GATE_PACK, Nursery, ServerProcess, server_process, wait_until
from .workflows import api_prompt

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the servers are forked")


async def sampling_step(server: ServerProcess, prompt_id: str) -> None:
    """Waits until the prompt has made a step of sampling."""
    address = f"{server.address()}/ws?clientId=stop"
    async with ClientSession() as session, session.ws_connect(address) as socket:
        await Listener(socket).until("progress", prompt_id=prompt_id)


async def test_ctrl_c_puts_the_running_prompt_back(nursery: Nursery, tmp_path: Path) -> None:
    data = tmp_path / "data"
    prompt = api_prompt(WORKFLOWS / "text_to_image.json")
    with server_process(nursery, data) as server:
        _, first = server.post("/prompt", {"prompt": prompt, "client_id": "stop"})
        _, second = server.post("/prompt", {"prompt": prompt})
        await sampling_step(server, first["prompt_id"])
        server.signal(signal.SIGINT)
        assert server.wait() == 0
        assert [line.split(" ")[0] for line in server.output.splitlines()] == [
            server.address() + "/?template=text_to_image&source=comfyui-wuerstchen",
            "Stopping",
        ]
    ids = [first["prompt_id"], second["prompt_id"]]
    with server_process(nursery, data) as server:
        queue = server.get("/queue")
        assert [entry[1] for entry in queue["queue_running"] + queue["queue_pending"]] == ids
        wait_until(lambda: not any(server.get("/queue").values()), "the queue does not get empty")
        history = server.get("/history")
        assert list(history) == ids
        assert {entry["status"]["status_str"] for entry in history.values()} == {"success"}
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


def test_a_second_ctrl_c_ends_what_does_not_listen(nursery: Nursery, tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "custom_nodes").mkdir(parents=True)
    (data / "custom_nodes" / "gate.py").write_text(GATE_PACK)
    prompt = graph(n1=("WaitForFile", {"path": str(tmp_path / "opened")}))
    with server_process(nursery, data, "--custom-nodes") as server:
        _, accepted = server.post("/prompt", {"prompt": prompt})
        wait_until(lambda: server.get("/queue")["queue_running"], "nothing runs")
        server.signal(signal.SIGINT)
        wait_until(lambda: not listens(server), "it still listens")
        server.signal(signal.SIGINT)
        assert server.wait() == 130
    (tmp_path / "opened").touch()
    with server_process(nursery, data, "--custom-nodes") as server:
        wait_until(lambda: server.get("/history"), "the prompt was lost")
        assert list(server.get("/history")) == [accepted["prompt_id"]]


def listens(server: ServerProcess) -> bool:
    port = int(server.address().rpartition(":")[2])
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def complaint(nursery: Nursery, data: Path, *options: str) -> str:
    """The one sentence with which a server that cannot start ends."""
    with server_process(nursery, data, *options) as server:
        assert server.wait() == 2
        [sentence] = server.output.splitlines()
    return sentence


def test_a_second_server_over_the_same_data(nursery: Nursery, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with server_process(nursery, data) as server:
        server.address()
        linked = tmp_path / "linked"
        linked.symlink_to(data)
        assert "Another wuerstchen serve works in" in complaint(nursery, linked)
        server.get("/queue")


def test_a_port_that_is_taken(nursery: Nursery, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        said = complaint(nursery, tmp_path / "data", "--port", port)
    assert said.startswith(f"Cannot listen on 127.0.0.1, port {port}")


def test_a_host_that_cannot_be(nursery: Nursery, tmp_path: Path) -> None:
    said = complaint(nursery, tmp_path / "data", "--host", "a..b", "--no-auth")
    assert said.startswith("Cannot listen on a..b, port 0")


@pytest.mark.parametrize("name", ["user/wuerstchen.db", "user/.wuerstchen.lock", "output"])
def test_a_data_folder_that_cannot_be_written(nursery: Nursery, tmp_path: Path, name: str) -> None:
    in_the_way = tmp_path / "data" / name
    in_the_way.parent.mkdir(parents=True)
    if name == "output":
        in_the_way.touch()
    else:
        in_the_way.mkdir()
    said = complaint(nursery, tmp_path / "data")
    assert f"'{in_the_way}' cannot be " in said
