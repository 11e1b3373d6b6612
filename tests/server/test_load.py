"""A thousand prompts in the queue and fifty open WebSockets.

How long things take is measured by `benchmarks/server_load.py`.
"""

import json
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from .conftest import Listener, graph
from .processes import GATE_PACK, Nursery, server_process

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the servers are forked")

PROMPTS = 1000
SOCKETS = 50
WORKFLOW = {"id": "w", "nodes": [{"id": number, "text": "x" * 280} for number in range(100)]}
MAX_GROWTH = 100 << 20


class Client:
    def __init__(self, session: ClientSession, address: str) -> None:
        self._session = session
        self._address = address

    async def get(self, path: str) -> Any:
        async with self._session.get(self._address + path) as answer:
            assert answer.status == 200
            return await answer.json()

    async def submit(self, prompt: Any) -> dict[str, Any]:
        about = {"extra_pnginfo": {"workflow": WORKFLOW}}
        body = {"prompt": prompt, "client_id": "0", "extra_data": about}
        async with self._session.post(f"{self._address}/prompt", json=body) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def listen(self, stack: AsyncExitStack, client_id: str) -> Listener:
        address = f"{self._address}/ws?clientId={client_id}"
        return Listener(await stack.enter_async_context(self._session.ws_connect(address)))

    async def pages(self, path: str, size: int) -> list[Any]:
        """What the pages from the first to the first empty one hold."""
        found: list[Any] = []
        while True:
            answer = await self.get(f"{path}={size}&offset={len(found)}")
            page = answer.get("jobs", answer)
            if not page:
                return found
            assert len(page) <= size
            found += page


async def test_a_thousand_prompts_and_fifty_sockets(nursery: Nursery, tmp_path: Path) -> None:
    assert len(json.dumps(WORKFLOW)) >= 30_000
    data = tmp_path / "data"
    (data / "custom_nodes").mkdir(parents=True)
    (data / "custom_nodes" / "gate.py").write_text(GATE_PACK)
    prompt = graph(n1=("WaitForFile", {"path": str(tmp_path / "opened")}))
    with server_process(nursery, data, "--custom-nodes") as server:
        async with AsyncExitStack() as stack:
            session = await stack.enter_async_context(ClientSession())
            client = Client(session, server.address())
            listeners = [await client.listen(stack, f"{number}") for number in range(SOCKETS)]
            first = await client.submit(prompt)
            before = server.resident_bytes()
            rest = [await client.submit(prompt) for _ in range(PROMPTS - 1)]
            accepted = [first, *rest]
            assert [one["number"] for one in accepted] == list(range(PROMPTS))
            ids = [one["prompt_id"] for one in accepted]
            await check_queue(client, ids)
            assert server.resident_bytes() - before < MAX_GROWTH

            (tmp_path / "opened").touch()
            empty = {"exec_info": {"queue_remaining": 0}}
            for listener in listeners:
                await listener.until("status", status=empty, sid=None)  # not the greeting
            await check_history(client, ids)
            assert server.resident_bytes() - before < MAX_GROWTH


async def check_queue(client: Client, ids: list[str]) -> None:
    queue = await client.get("/api/queue")
    assert [entry[1] for entry in queue["queue_running"]] == ids[:1]
    assert [entry[1] for entry in queue["queue_pending"]] == ids[1:]
    assert queue["queue_pending"][-1][3]["extra_pnginfo"]["workflow"] == WORKFLOW
    assert await client.get("/prompt") == {"exec_info": {"queue_remaining": PROMPTS}}
    jobs = await client.pages("/api/jobs?status=pending,in_progress&sort_order=asc&limit", 300)
    assert [job["id"] for job in jobs] == ids
    answer = await client.get("/api/jobs?limit=10&offset=500")
    assert answer["pagination"] == {
        "offset": 500,
        "limit": 10,
        "total": PROMPTS,
        "has_more": True,
    }


async def check_history(client: Client, ids: list[str]) -> None:
    assert await client.pages("/history?max_items", 99) == ids
    assert list(await client.get("/history?max_items=3")) == ids[-3:]
    assert list(await client.get("/history")) == ids
    jobs = await client.pages("/api/jobs?status=completed&sort_order=asc&limit", 300)
    assert [job["id"] for job in jobs] == ids
