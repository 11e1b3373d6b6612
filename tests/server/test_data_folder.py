"""What the server does with a folder that it is given."""

import sqlite3
from pathlib import Path

import pytest

from comfyui_wuerstchen.host.server.assemble import ServeSettings
from comfyui_wuerstchen.host.server.store import SUSPICIOUS_STARTS, JobStore

from ..host.conftest import _load_toys
from .conftest import graph, serving

SHOWN = graph(
    n1=("Picture", {"content": "BLACK", "height": 8}), n5=("PreviewImage", {"images": ["1", 0]})
)


async def start_and_stop(settings: ServeSettings, prompt: dict | None = None) -> None:
    async with serving(settings, _load_toys().TOY_NODES) as running:
        if prompt is not None:
            listener = await running.listen()
            _, answer = await running.submit(prompt, client_id="tester")
            await listener.until_done(answer["prompt_id"])


async def test_files_of_others_stay(settings: ServeSettings) -> None:
    for name in ("temp/thesis/chapter1.txt", "input/mine.txt", "output/mine.txt", "notes.md"):
        (settings.data / name).parent.mkdir(parents=True, exist_ok=True)
        (settings.data / name).write_text("mine")
    await start_and_stop(settings, SHOWN)
    (settings.data / "user" / "wuerstchen.db").write_bytes(b"no database" * 1000)
    await start_and_stop(settings)
    for name in ("temp/thesis/chapter1.txt", "input/mine.txt", "output/mine.txt", "notes.md"):
        assert (settings.data / name).read_text() == "mine"
    assert list((settings.data / "user").glob("wuerstchen.db.broken-*"))


async def test_shown_pictures_live_as_long_as_the_history(settings: ServeSettings) -> None:
    shown = settings.data / "user" / "temp"
    await start_and_stop(settings, SHOWN)
    assert len(list(shown.glob("*.png"))) == 1
    (shown / "left_00001_.png").write_bytes(b"of a prompt that is forgotten")
    await start_and_stop(settings)
    assert [path.name.startswith("left") for path in shown.glob("*.png")] == [False]


def killed_while_running(path: Path, times: int) -> None:
    for _ in range(times):
        store = JobStore(path)
        if store.get("killer") is None:
            store.add("killer", {"1": {}}, {"create_time": 1}, ["1"])
        assert store.claim() is not None
        store.close()


def test_a_prompt_that_ends_the_server_can_be_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "jobs.db"
    killed_while_running(path, SUSPICIOUS_STARTS)
    store = JobStore(path)
    assert "--skip-unfinished" in caplog.text
    assert store.queue() == ([], ["killer"])  # tried again unless someone says otherwise
    assert store.claim() is not None
    store.close()

    store = JobStore(path, try_again=False)
    assert store.queue() == ([], []) and store.remaining() == 0
    job = store.get("killer")
    assert job is not None and job.status == "cancelled"
    assert store.page()[0][0]["status"] == "cancelled"


def test_a_clean_end_does_not_make_a_prompt_suspicious(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "jobs.db"
    for _ in range(SUSPICIOUS_STARTS + 1):
        store = JobStore(path)
        if store.get("slow") is None:
            store.add("slow", {"1": {}}, {"create_time": 1}, ["1"])
        job = store.claim()
        assert job is not None
        store.requeue(job.id)
        store.close()
    JobStore(path).close()
    assert "--skip-unfinished" not in caplog.text
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT starts FROM jobs").fetchall() == [(0,)]
