"""How `wuerstchen serve` bears 1,000 queued prompts and 50 open WebSockets while it samples.

    python benchmarks/server_load.py

Starts a server over an empty folder with the demo model. Each prompt carries a saved workflow of
30 KB, as the canvas sends it. Latencies are of one client that asks again as soon as it has the
answer; it shares the processor with the server and the sampler. Memory is read on Linux only.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType
from PIL import Image

from comfyui_wuerstchen.host.folders import Folders, HostSurroundings
from comfyui_wuerstchen.host.graph_file import load_graph
from comfyui_wuerstchen.host.registry import default_nodes
from comfyui_wuerstchen.nodes.runtime import use

EXAMPLE = Path(__file__).resolve().parents[1] / "example_workflows" / "text_to_image.json"
WORKFLOW_BYTES = 30_000
QUICK: dict[str, Any] = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "small.png"}},
    "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
}


def example_prompt(steps: int) -> dict[str, Any]:
    """Text to image with so many steps a stage."""
    here = Folders(EXAMPLE.parent, EXAMPLE.parent, EXAMPLE.parent)
    with use(HostSurroundings(here)):
        prompt = load_graph(EXAMPLE, default_nodes()).prompt
    for node in prompt.values():
        if "steps" in node["inputs"]:
            node["inputs"]["steps"] = steps
    return prompt


def workflow() -> dict[str, Any]:
    """The example with its nodes repeated until it is of the wanted size."""
    about = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    nodes = about["nodes"]
    while len(json.dumps(about)) < WORKFLOW_BYTES:
        about["nodes"] = about["nodes"] + nodes
    return about


class Client:
    def __init__(self, session: ClientSession, address: str, process_id: int) -> None:
        self._session = session
        self.address = address
        self._process_id = process_id

    async def fetch(self, path: str) -> bytes:
        async with self._session.get(self.address + path) as answer:
            answer.raise_for_status()
            return await answer.read()

    async def get(self, path: str) -> Any:
        return json.loads(await self.fetch(path))

    async def post(self, path: str, body: Any) -> None:
        async with self._session.post(self.address + path, json=body) as answer:
            answer.raise_for_status()
            await answer.read()

    async def listen(self, sid: str) -> ClientWebSocketResponse:
        return await self._session.ws_connect(f"{self.address}/ws?clientId={sid}")

    def megabytes(self) -> float:
        """Of the server's memory; NaN where it cannot be read."""
        try:
            lines = Path(f"/proc/{self._process_id}/status").read_text().splitlines()
        except OSError:
            return float("nan")
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))

    async def until(self, reached: Callable[[int], bool]) -> None:
        """Waits until the number of waiting and running prompts is right."""
        while not reached((await self.get("/prompt"))["exec_info"]["queue_remaining"]):
            await asyncio.sleep(0.1)


@asynccontextmanager
async def serving(data: Path, *options: str) -> AsyncIterator[Client]:
    """`wuerstchen serve` in a process of its own, over a folder with one small picture."""
    (data / "input").mkdir()
    Image.new("RGB", (8, 8), "orange").save(data / "input" / "small.png")
    command = [sys.executable, "-m", "comfyui_wuerstchen.host.cli", "serve", "--port", "0"]
    process = await asyncio.create_subprocess_exec(
        *command, "--data", str(data), *options, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    address = (await process.stdout.readline()).decode().split("/?")[0]
    try:
        async with ClientSession() as session:
            yield Client(session, address, process.pid)
    finally:
        process.terminate()
        await process.wait()


async def timed(name: str, count: int, act: Callable[[int], Awaitable[Any]]) -> None:
    """Prints how long each of `count` calls took."""
    taken = []
    for number in range(count):
        started = time.perf_counter()
        await act(number)
        taken.append(1000 * (time.perf_counter() - started))
    parts = statistics.quantiles(taken, n=100)
    print(f"{name:<42} {parts[49]:8.1f} {parts[98]:8.1f} {max(taken):8.1f}")


async def until(
    socket: ClientWebSocketResponse, kind: str, node: str | None = None
) -> dict[str, Any]:
    """The data of the next message of this kind, of any node or of this one."""
    async for message in socket:
        if message.type is WSMsgType.TEXT:
            about = message.json()
            if about["type"] == kind and node in (None, about["data"].get("node")):
                return about["data"]
    raise ConnectionError("the server has gone")


async def follow(socket: ClientWebSocketResponse) -> None:
    async for _ in socket:
        pass


async def measure(client: Client, prompts: int, sockets: int, requests: int) -> None:
    body = {"extra_data": {"extra_pnginfo": {"workflow": workflow()}}}

    async with AsyncExitStack() as stack:
        listeners = [
            await stack.enter_async_context(await client.listen(f"{number}"))
            for number in range(sockets)
        ]
        await client.post(
            "/prompt", {"prompt": example_prompt(steps=1000), "client_id": "0", **body}
        )
        await until(listeners[0], "progress")
        followers = [asyncio.create_task(follow(socket)) for socket in listeners]

        print(f"{'ms':<42} {'median':>8} {'p99':>8} {'max':>8}")
        await timed("GET /api/queue, 1 prompt", requests, lambda _: client.fetch("/api/queue"))
        before = client.megabytes()
        quick = {"prompt": QUICK, "client_id": "0", **body}
        await timed(f"POST /prompt, {prompts}", prompts, lambda _: client.post("/prompt", quick))
        print(f"  the server grew from {before:.0f} MB to {client.megabytes():.0f} MB")

        for path in ("/api/prompt", "/api/jobs?limit=200", "/api/queue"):
            name = f"GET {path}, {prompts + 1} prompts"
            await timed(name, requests, lambda _, path=path: client.fetch(path))
        left = (await client.get("/prompt"))["exec_info"]["queue_remaining"]
        print(f"  the server has {client.megabytes():.0f} MB; {left} prompts wait or run")

        await client.post("/interrupt", {})
        await client.until(lambda remaining: remaining == 0)
        print(f"all done; the server has {client.megabytes():.0f} MB")
        for path in ("/api/history?max_items=50", "/api/history", "/api/jobs?limit=200"):
            name = f"GET {path}, {prompts + 1} done"
            await timed(name, requests // 5, lambda _, path=path: client.fetch(path))
        print(f"  the server has {client.megabytes():.0f} MB")
        for follower in followers:
            follower.cancel()


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=1000)
    parser.add_argument("--sockets", type=int, default=50)
    parser.add_argument("--requests", type=int, default=200, help="of each kind")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        async with serving(Path(folder)) as client:
            await measure(client, arguments.prompts, arguments.sockets, arguments.requests)


if __name__ == "__main__":
    asyncio.run(main())
