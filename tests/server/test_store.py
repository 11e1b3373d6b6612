"""The queue and the history on the disk: order, places, pages, and what a killed process leaves."""

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from comfyui_wuerstchen.host.server import database
from comfyui_wuerstchen.host.server.records import Job, detail
from comfyui_wuerstchen.host.server.store import DuplicateJob, JobStore

PROMPT = {"1": {"class_type": "Show", "inputs": {"value": "ü" * 10}}}
PICTURE = {"filename": "a_00001_.png", "subfolder": "", "type": "output"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest.fixture
def store(path: Path) -> Iterator[JobStore]:
    opened = JobStore(path)
    yield opened
    opened.close()


def add(store: JobStore, job_id: str | None = None, *, at: int = 0, **more: Any) -> Job:
    extra_data = {"create_time": at, **more.pop("extra_data", {})}
    return store.add(job_id or str(uuid4()), PROMPT, extra_data, ["1"], **more)


def finish(store: JobStore, job: Job, *, start: int = 0, end: int = 0) -> None:
    messages = [
        ("execution_start", {"timestamp": start}),
        ("execution_success", {"timestamp": end}),
    ]
    store.finish(
        replace(job, status="completed", outputs={"1": {"images": [PICTURE]}}, messages=messages)
    )


def claim(store: JobStore) -> Job:
    job = store.claim()
    assert job is not None
    return job


def run_next(store: JobStore, **times: int) -> str:
    job = claim(store)
    finish(store, job, **times)
    return job.id


@contextmanager
def after_a_kill(path: Path) -> Iterator[JobStore]:
    """What another process finds when this one is killed now."""
    folder = path.with_name("after")
    folder.mkdir()
    for suffix in ("", "-wal"):  # the rest of it does not outlive a process
        part = path.with_name(path.name + suffix)
        (folder / part.name).write_bytes(part.read_bytes())
    with closing(JobStore(folder / path.name)) as store:
        yield store


def entries(texts: list[str]) -> list[Any]:
    return [json.loads(text) for text in texts]


def test_prompts_run_in_the_order_of_their_numbers(store: JobStore) -> None:
    for name in "abc":
        add(store, name)
    add(store, "front", front=True)
    add(store, "later", number=1e9)
    add(store, "between", number=0.5)
    add(store, "last")  # counted on from "c": the numbers of clients change nothing
    order = [run_next(store) for _ in range(7)]
    assert order == ["front", "a", "between", "b", "c", "last", "later"]
    assert store.claim() is None


def test_the_first_in_front_is_the_last_that_asked(store: JobStore) -> None:
    for name in "abc":
        add(store, name, front=True)
    assert [run_next(store) for _ in range(3)] == ["c", "b", "a"]


def test_an_id_is_used_once(store: JobStore) -> None:
    add(store, "a")
    with pytest.raises(DuplicateJob):
        add(store, "a")
    run_next(store)
    with pytest.raises(DuplicateJob):
        add(store, "a")
    assert (store.remaining(), store.history()) == (0, ["a"])


def test_a_killed_process_leaves_its_prompt_at_its_old_place(store: JobStore, path: Path) -> None:
    for name in "abc":
        add(store, name)
    run_next(store)
    claim(store)
    with after_a_kill(path) as after:
        assert after.queue() == ([], ["b", "c"])
        assert after.history() == ["a"]
        assert after.remaining() == 2
        assert [run_next(after) for _ in range(2)] == ["b", "c"]


def test_what_an_add_has_returned_is_on_the_disk(store: JobStore, path: Path) -> None:
    add(store, "a", extra_data={"client_id": "me"})
    with after_a_kill(path) as after:
        job = claim(after)
    assert (job.id, job.prompt, job.targets, job.client_id) == ("a", PROMPT, ["1"], "me")


def test_a_prompt_put_back_keeps_its_place(store: JobStore) -> None:
    for name in "abc":
        add(store, name)
    store.requeue(claim(store).id)
    assert store.queue() == ([], ["a", "b", "c"])
    assert claim(store).id == "a"


def test_entries_are_what_was_put_in(store: JobStore) -> None:
    add(store, "a", extra_data={"seed": 2**64 - 1, "words": 'a "quoted" ü \u2028'})
    finish(store, claim(store), start=10, end=30)
    add(store, "b", number=1.5)
    claim(store)
    add(store, "c")
    running, waiting = store.queue()
    assert (running, waiting) == (["b"], ["c"])
    [b, c] = entries(store.queue_entries(running + waiting))
    assert b == [1.5, "b", PROMPT, {"create_time": 0}, ["1"]]
    assert c[:2] == [2, "c"]
    [a] = store.history_entries(["a", "b", "nobody"])
    kept = json.loads("{" + a + "}")["a"]
    extra_data = {"create_time": 0, "seed": 2**64 - 1, "words": 'a "quoted" ü \u2028'}
    assert kept["prompt"] == [0, "a", PROMPT, extra_data, ["1"]]
    assert kept["outputs"] == {"1": {"images": [PICTURE]}}
    assert kept["status"]["status_str"] == "success" and kept["status"]["completed"] is True
    assert kept["status"]["messages"][0] == ["execution_start", {"timestamp": 10}]
    job = store.get("a")
    assert job is not None and job.status == "completed"
    assert detail(job)["execution_status"] == kept["status"]
    assert detail(job)["preview_output"] == {**PICTURE, "nodeId": "1", "mediaType": "images"}


def test_the_history_in_pages(store: JobStore) -> None:
    for number in range(5):
        add(store, f"{number}")
        run_next(store)
    assert store.history() == ["0", "1", "2", "3", "4"]
    assert store.history(2) == ["3", "4"]
    assert store.history(2, 0) == ["0", "1"]
    assert store.history(2, 4) == ["4"]
    assert store.history(None, 3) == ["3", "4"]
    assert store.history(0) == []
    assert store.history(9, 9) == []


def test_summaries_in_pages(store: JobStore) -> None:
    workflow = {"extra_pnginfo": {"workflow": {"id": "w"}}}
    add(store, "slow", at=1)
    run_next(store, start=0, end=50)
    add(store, "quick", at=2, extra_data=workflow)
    run_next(store, start=0, end=5)
    add(store, "running", at=3, extra_data=workflow)
    claim(store)
    add(store, "waiting", at=4)

    def ids(*arguments: Any, **options: Any) -> list[str]:
        return [job["id"] for job in store.page(*arguments, **options)[0]]

    assert ids() == ["waiting", "running", "quick", "slow"]
    assert ids(descending=False, limit=2, offset=1) == ["quick", "running"]
    assert ids(["completed"], sort_by="execution_duration") == ["slow", "quick"]
    assert ids(workflow_id="w") == ["running", "quick"]
    jobs, total = store.page(["in_progress", "pending"], limit=1)
    assert (jobs[0]["status"], total) == ("pending", 2)


def test_only_what_waits_leaves_the_queue(store: JobStore) -> None:
    for name in ("done", "running", "a", "b", "c"):
        add(store, name)
    run_next(store)
    claim(store)
    assert store.drop_pending(["a", "running", "done", "nobody"]) == ["a"]
    assert store.drop_pending() == ["b", "c"]
    assert store.remaining() == 1
    assert store.drop_history(["running"]) == []
    assert store.drop_history() == ["done"]
    assert store.queue() == (["running"], [])


def test_the_oldest_history_goes_first(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comfyui_wuerstchen.host.server.store.KEPT_HISTORY", 3)
    for number in range(5):
        add(store, f"{number}")
        run_next(store)
    assert store.history() == ["2", "3", "4"]


def test_a_file_that_is_no_database_is_set_aside(path: Path) -> None:
    path.write_bytes(b"not a database at all" * 100)
    store = JobStore(path)
    add(store, "a")
    store.close()
    (broken,) = path.parent.glob("jobs.db.broken-*")
    assert broken.read_bytes().startswith(b"not a database")


def test_an_error_in_the_middle_changes_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program holds the file, and then lets go."""
    monkeypatch.setattr(database, "LOCKED_S", 0.0)
    store = JobStore(path)
    add(store, "a")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    attempts: list[Callable[[], Any]] = [
        lambda: add(store, "b"),
        store.claim,
        store.drop_pending,
    ]
    for attempt in attempts:
        with pytest.raises(sqlite3.OperationalError):
            attempt()
    assert store.queue() == ([], ["a"])  # reading goes on
    assert store.remaining() == 1
    other.execute("COMMIT")
    other.close()
    add(store, "b")
    assert [run_next(store) for _ in range(2)] == ["a", "b"]
    store.close()


def test_many_threads_at_once(store: JobStore) -> None:
    """Eight threads put in and take out; each prompt is taken once."""
    taken: list[str] = []

    def work(name: str) -> None:
        for number in range(25):
            add(store, f"{name}{number}")
            job = store.claim()
            if job is not None:
                finish(store, job)
                taken.append(job.id)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcdefgh"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    while store.remaining():
        taken.append(run_next(store))
    assert len(taken) == len(set(taken)) == 200
    assert sorted(store.history()) == sorted(taken)
