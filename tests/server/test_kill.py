"""`kill -9` at any moment: every accepted prompt is finished once, in its place, with its files."""

import json
import random
import sqlite3
import sys
import threading
import time
from contextlib import closing
from http.client import HTTPException
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from PIL import Image

from comfyui_wuerstchen.wuerstchen_core.files import PARTIAL_PREFIX
from comfyui_wuerstchen.wuerstchen_core.folder_lock import LOCK_NAME

from .conftest import Prompt, graph
from .processes import Nursery, ServerProcess, server_process, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the servers are forked")

PROMPTS = 30
KILLS = 50
START_S = 0.05  # about what a server takes to start
LONGEST_LIFE_S = 0.35  # after that
SIDE = 400  # pixels; large enough for most kills to meet a prompt at work


def prompt(number: int) -> Prompt:
    """Takes some tenths of a second: four files, one of them only for show."""
    return graph(
        n1=("LoadImage", {"image": f"{number}.png"}),
        n2=("SaveImage", {"images": ["1", 0], "filename_prefix": f"one/{number}"}),
        n3=("SaveImage", {"images": ["1", 0], "filename_prefix": f"two/{number}"}),
        n4=("SaveImage", {"images": ["1", 0], "filename_prefix": f"three/{number}"}),
        n5=("PreviewImage", {"images": ["1", 0]}),
    )


def draw_inputs(folder: Path) -> None:
    folder.mkdir(parents=True)
    for number in range(PROMPTS):
        noise = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png", compress_level=0)


class Submitter:
    """A client that does not give up: it sends each prompt until a server says it has it."""

    def __init__(self, seed: int) -> None:
        self.server: ServerProcess | None = None
        self.allowed = 0  # how many prompts may be sent by now
        self.accepted: list[str] = []
        self.errors: list[Any] = []
        self._random = random.Random(seed)
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self) -> None:
        for number in range(PROMPTS):
            job_id = str(UUID(int=self._random.getrandbits(128), version=4))
            wait_until(lambda number=number: number < self.allowed, "not allowed to send")
            body = {"prompt": prompt(number), "prompt_id": job_id, "client_id": "kill"}
            wait_until(lambda body=body: self._send(body), "nobody accepted the prompt")
            self.accepted.append(job_id)

    def _send(self, body: dict[str, Any]) -> bool:
        server = self.server
        try:
            status, answer = server.post("/prompt", body) if server else (0, None)
        except (OSError, HTTPException, ValueError, AssertionError):
            return False  # killed before the answer was whole; it may have been kept
        if status == 200:
            return True
        # What was kept before a kill cut the answer off is known by its id.
        if status and "used already" not in answer["error"]["message"]:
            self.errors.append(answer)
        return bool(status)

    def finish(self) -> None:
        self.allowed = PROMPTS
        self._thread.join()


def partials(data: Path) -> set[Path]:
    return set(data.rglob(f"{PARTIAL_PREFIX}*"))


def in_progress(data: Path) -> int:
    try:
        with closing(sqlite3.connect(data / "user" / "wuerstchen.db")) as db:
            query = "SELECT count(*) FROM jobs WHERE status = 'in_progress'"
            return db.execute(query).fetchone()[0]
    except sqlite3.OperationalError:  # killed before there was a folder or a table
        return 0


def test_nothing_is_lost_by_fifty_kills(nursery: Nursery, tmp_path: Path) -> None:
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    moments = random.Random(seed)
    data = tmp_path / "data"
    draw_inputs(data / "input")
    submitter = Submitter(seed)
    killed_at_work = 0
    left: set[Path] = set()
    for kill in range(KILLS):
        submitter.server = server = ServerProcess(nursery, data)
        submitter.allowed = PROMPTS * (kill + 1) // KILLS
        if kill % 5 == 0:
            time.sleep(moments.uniform(0.0, START_S))
        else:
            server.address()
            assert not left & partials(data)
            time.sleep(moments.uniform(0.0, LONGEST_LIFE_S))
        server.kill()
        left |= partials(data)
        killed_at_work += in_progress(data)

    submitter.server = server = ServerProcess(nursery, data)
    submitter.finish()
    wait_until(lambda: not any(server.get("/queue").values()), "the queue does not get empty")
    check(server, data, submitter)
    server.kill()
    print(f"{killed_at_work} kills met a running prompt, {len(left)} a half-written file")
    assert killed_at_work >= KILLS // 5  # else the moments were not worth much


def check(server: ServerProcess, data: Path, submitter: Submitter) -> None:
    assert submitter.errors == []
    history = server.get("/history")
    assert list(history) == submitter.accepted  # all, once, in the order of the queue
    starts = []
    for number, entry in enumerate(history.values()):
        assert entry["status"]["status_str"] == "success", entry["status"]
        assert entry["prompt"][0] == number
        assert entry["prompt"][2] == prompt(number)
        starts.append(dict(entry["status"]["messages"])["execution_start"]["timestamp"])
        assert sorted(entry["outputs"]) == ["2", "3", "4", "5"]
        with Image.open(data / "input" / f"{number}.png") as drawn:
            expected = np.asarray(drawn)
        for ui in entry["outputs"].values():
            check_picture(data, ui["images"][0], number, expected)
    assert starts == sorted(starts)
    jobs = server.get("/api/jobs")
    assert jobs["pagination"]["total"] == PROMPTS
    assert {job["status"] for job in jobs["jobs"]} == {"completed"}
    assert partials(data) == set()


def check_picture(data: Path, about: dict[str, str], number: int, expected: Any) -> None:
    folder = {"output": data / "output", "temp": data / "user" / "temp"}[about["type"]]
    with Image.open(folder / about["subfolder"] / about["filename"]) as picture:
        assert json.loads(picture.text["prompt"]) == prompt(number)
        assert (np.asarray(picture) == expected).all()


def test_a_start_removes_what_was_half_written(nursery: Nursery, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with server_process(nursery, data) as server:
        server.address()
    folders = (
        "output",
        "output/day",
        "input",
        "input/clipspace",
        "user/temp",
        "user/default/workflows",
    )
    for name in folders:
        folder = data / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / LOCK_NAME).touch()  # as whoever writes there leaves it
        (folder / f"{PARTIAL_PREFIX}1234-a.png").touch()
    (data / "output" / "kept.png").touch()
    with server_process(nursery, data) as server:
        server.address()
        assert partials(data) == set()
    assert (data / "output" / "kept.png").exists()
