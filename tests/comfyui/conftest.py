"""Real ComfyUI as a child process over a folder of its own, with this repository linked into its
`custom_nodes`; and a client of it.

Needs a checkout of ComfyUI in COMFYUI_DIR and a Python with its requirements in COMFYUI_PYTHON.
"""

from __future__ import annotations

import io
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import ClientSession
from PIL import Image

from ..paths import ROOT
from ..server.conftest import Listener

# Not the repository's own name: the pack has to work under any.
PACK = "any-name_2"
START_S = 180


@dataclass(frozen=True)
class Install:
    """What the two variables name."""

    checkout: Path
    python: str

    def command(self, base: Path, *arguments: str) -> list[str]:
        return [
            self.python,
            str(self.checkout / "main.py"),
            "--cpu",
            f"--base-directory={base}",
            "--disable-api-nodes",  # as it then keeps the canvas away from other hosts
            *arguments,
        ]


@dataclass
class Process:
    """ComfyUI running over the folder `base`."""

    base: Path
    url: str
    log: Path
    pid: int


@dataclass
class Outcome:
    """How a prompt went: the UI outputs by node, or what `execution_error` said."""

    outputs: dict[str, Any]
    error: dict[str, Any] | None
    listener: Listener


@dataclass
class Comfy:
    """A client of a running ComfyUI."""

    process: Process
    session: ClientSession
    client_id: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def url(self) -> str:
        return self.process.url

    async def get(self, path: str) -> Any:
        async with self.session.get(f"{self.url}{path}") as answer:
            assert answer.status == 200, (path, answer.status)
            return await answer.json()

    async def post(self, path: str, body: Any = None) -> tuple[int, Any]:
        async with self.session.post(f"{self.url}{path}", json=body) as answer:
            is_json = answer.content_type == "application/json"
            return answer.status, await (answer.json() if is_json else answer.text())

    async def listen(self) -> Listener:
        connected = await self.session.ws_connect(f"{self.url}/ws?clientId={self.client_id}")
        await connected.send_json(
            {"type": "feature_flags", "data": {"supports_preview_metadata": True}}
        )
        return Listener(connected)

    async def submit(self, prompt: dict[str, Any], **extra: Any) -> str:
        body = {"prompt": prompt, "client_id": self.client_id, "extra_data": extra}
        status, answer = await self.post("/prompt", body)
        assert status == 200 and not answer["node_errors"], answer
        return answer["prompt_id"]

    async def run(self, prompt: dict[str, Any], **extra: Any) -> Outcome:
        """Runs a prompt to its end; `extra` is its extra_data, such as `preview_method`."""
        listener = await self.listen()
        prompt_id = await self.submit(prompt, **extra)
        await listener.until("executing", node=None, prompt_id=prompt_id)
        await listener.socket.close()
        errors = [m["data"] for m in listener.heard if m["type"] == "execution_error"]
        history = await self.get(f"/history/{prompt_id}")
        outputs = history[prompt_id]["outputs"]
        return Outcome(outputs, errors[0] if errors else None, listener)

    async def pictures(self, prompt: dict[str, Any], **extra: Any) -> list[np.ndarray]:
        """What a prompt's Save Image nodes saved, in the order of nodes: H×W×3 each."""
        outcome = await self.run(prompt, **extra)
        assert outcome.error is None, outcome.error["exception_message"]
        saved = [one for ui in outcome.outputs.values() for one in ui.get("images", ())]
        return [await self.picture(one) for one in saved]

    async def picture(self, saved: dict[str, str]) -> np.ndarray:
        async with self.session.get(f"{self.url}/view", params=saved) as answer:
            assert answer.status == 200
            return np.asarray(Image.open(io.BytesIO(await answer.read())).convert("RGB"))


@pytest.fixture(scope="session")
def install() -> Install:
    checkout, python = os.environ.get("COMFYUI_DIR"), os.environ.get("COMFYUI_PYTHON")
    if not checkout or not python:
        pytest.skip("COMFYUI_DIR and COMFYUI_PYTHON do not name a ComfyUI and its Python")
    return Install(Path(checkout), python)


@pytest.fixture(scope="session")
def process(install: Install, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """ComfyUI with the repository as its only pack, for all tests."""
    with started(install, new_base(tmp_path_factory.mktemp("comfyui"), PACK)) as running:
        yield running


@contextmanager
def started(install: Install, base: Path, *arguments: str) -> Iterator[Process]:
    """ComfyUI in a process of its own, from when it answers."""
    port, log = free_port(), base / "log.txt"
    command = install.command(base, "--listen=127.0.0.1", f"--port={port}", *arguments)
    with log.open("wb") as out:
        child = subprocess.Popen(
            command, cwd=base, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_up(child, url, log)
        yield Process(base, url, log, child.pid)
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


@pytest.fixture
async def comfyui(process: Process) -> AsyncIterator[Comfy]:
    async with ClientSession() as session:
        yield Comfy(process, session)


def new_base(base: Path, pack: str) -> Path:
    """A folder for --base-directory, as a user has it after cloning the repository."""
    for name in ("custom_nodes", "input", "models", "user"):
        (base / name).mkdir(parents=True)
    (base / "custom_nodes" / pack).symlink_to(ROOT, target_is_directory=True)
    shutil.copy(ROOT / "input" / "example.png", base / "input")
    return base


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_up(child: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while True:
        assert child.poll() is None, log.read_text("utf-8")[-3000:]
        assert time.monotonic() < deadline, log.read_text("utf-8")[-3000:]
        try:
            with urllib.request.urlopen(f"{url}/system_stats", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says which ComfyUI the tests ran in, and how many of which file passed there."""
    marked = [one for one in terminalreporter.getreports("passed") if "comfyui" in one.keywords]
    checkout = os.environ.get("COMFYUI_DIR")
    if marked and checkout:
        version = Path(checkout) / "comfyui_version.py"
        terminalreporter.section(f"in ComfyUI: {version.read_text().splitlines()[-1]}")
        for name, count in Counter(one.location[0] for one in marked).items():
            terminalreporter.line(f"{count:4} {name}")
