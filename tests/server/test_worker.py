"""The worker's thread: order, cancelling at every moment, and that nothing stops the queue."""

import json
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Condition, Event, Thread
from typing import Any, ClassVar
from uuid import uuid4

import pytest

from comfyui_wuerstchen.host.executor import Executor
from comfyui_wuerstchen.host.folders import Folders
from comfyui_wuerstchen.host.server import database
from comfyui_wuerstchen.host.server.store import JobStore
from comfyui_wuerstchen.host.server.worker import Worker
from comfyui_wuerstchen.nodes.runtime import surroundings

from .conftest import Prompt, graph

PATIENCE_S = 60.0


class Gate:
    """An output that runs until `opened`, or until it is cancelled."""

    entered: ClassVar[Event]
    opened: ClassVar[Event]
    RETURN_TYPES = ()
    FUNCTION = "run"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"name": ("STRING",)}}

    def run(self, name: str) -> dict[str, Any]:
        self.entered.set()
        while not self.opened.wait(0.01):
            surroundings().check_cancelled()
        return {"ui": {"name": [name]}}


class Say:
    """An output with something odd to show."""

    RETURN_TYPES = ()
    FUNCTION = "say"
    OUTPUT_NODE = True
    ODD: ClassVar[dict[str, Callable[[], Any]]] = {
        "plain": lambda: "plain",
        "nan": lambda: float("nan"),
        "vast": lambda: 10**5000,
        "object": lambda: object,
        "circle": lambda: _circle(),
        "exit": lambda: sys.exit(3),
    }

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"what": (list(cls.ODD),)}}

    def say(self, what: str) -> dict[str, Any]:
        return {"ui": {"said": [self.ODD[what]()]}}


def _circle() -> list[Any]:
    circle: list[Any] = []
    circle.append(circle)
    return circle


def gate(name: str = "") -> Prompt:
    return graph(n1=("Gate", {"name": name}))


def say(what: str) -> Prompt:
    return graph(n1=("Say", {"what": what}))


class Ear:
    """Listens to a worker; `on_hear` is called in the worker's thread."""

    def __init__(self) -> None:
        self.heard: list[tuple[str | None, str, dict[str, Any]]] = []
        self.on_hear: Callable[[str, dict[str, Any]], None] = lambda kind, data: None
        self._changed = Condition()

    def __call__(self, client: str | None, kind: str, data: dict[str, Any]) -> None:
        with self._changed:
            self.heard.append((client, kind, data))
            self._changed.notify_all()
        self.on_hear(kind, data)

    def wait_for(self, kind: str, **values: Any) -> None:
        def has_come() -> bool:
            return any(
                heard == kind and values.items() <= data.items() for _, heard, data in self.heard
            )

        with self._changed:
            assert self._changed.wait_for(has_come, PATIENCE_S), (kind, values, self.heard)

    def wait_for_end(self, job_id: str) -> None:
        self.wait_for("executing", node=None, prompt_id=job_id)


class Bench:
    """A worker with its store and an ear."""

    def __init__(self, folder: Path, store: JobStore | None = None) -> None:
        self.store = store or JobStore(folder / "jobs.db")
        self.ear = Ear()
        for name in ("input", "output", "temp"):
            (folder / name).mkdir(exist_ok=True)
        folders = Folders(folder / "input", folder / "output", folder / "temp")
        self.executor = Executor({"Gate": Gate, "Say": Say}, folders)
        self.worker = Worker(self.executor, self.store, self.ear)

    def add(self, prompt: Prompt, job_id: str | None = None) -> str:
        extra_data = {"create_time": 0, "client_id": "me"}
        job_id = job_id or str(uuid4())
        self.store.add(job_id, prompt, extra_data, list(prompt))
        self.worker.wake()
        return job_id

    def status(self, job_id: str) -> str:
        job = self.store.get(job_id)
        assert job is not None
        return job.status

    def shown(self, job_id: str) -> Any:
        job = self.store.get(job_id)
        assert job is not None
        return job.outputs


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    Gate.entered, Gate.opened = Event(), Event()
    made = Bench(tmp_path)
    made.worker.start()
    yield made
    made.worker.stop()
    made.store.close()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another program writes to the database for a while."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


def enter_gate(bench: Bench) -> str:
    job_id = bench.add(gate())
    assert Gate.entered.wait(PATIENCE_S)
    return job_id


def test_the_history_is_there_when_the_end_is_heard(bench: Bench) -> None:
    found: list[list[str]] = []
    bench.ear.on_hear = lambda kind, data: (
        found.append(bench.store.history()) if data.get("node", "") is None else None
    )
    first, second = bench.add(say("plain")), bench.add(say("plain"))
    bench.ear.wait_for_end(second)
    assert found[0][:1] == [first]
    assert bench.store.history() == [first, second]
    assert [kind for _, kind, _ in bench.ear.heard][-2:] == ["status", "executing"]
    assert bench.ear.heard[-2][2] == {"status": {"exec_info": {"queue_remaining": 0}}}
    assert bench.shown(first) == {"1": {"said": ["plain"]}}


def test_a_cancel_between_claim_and_start(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    cancelled: list[bool] = []
    first = bench.add(say("plain"))

    def on_hear(kind: str, data: dict[str, Any]) -> None:
        if kind == "status" and not cancelled:  # the claim is told before the start
            cancelled.append(bench.worker.interrupt(first))

    bench.ear.on_hear = on_hear
    bench.worker.start()
    bench.ear.wait_for_end(first)
    assert cancelled == [True]
    assert bench.status(first) == "cancelled"
    assert bench.shown(first) == {}
    bench.worker.stop()


def test_a_cancel_of_a_finished_prompt_leaves_the_next_alone(bench: Bench) -> None:
    first = bench.add(say("plain"))
    bench.ear.wait_for_end(first)
    second = enter_gate(bench)
    assert bench.worker.interrupt(first) is False
    Gate.opened.set()
    bench.ear.wait_for_end(second)
    assert bench.status(second) == "completed"
    assert bench.worker.interrupt() is False


def test_a_cancelled_prompt_is_told_and_the_next_runs(bench: Bench) -> None:
    first = enter_gate(bench)
    second = bench.add(say("plain"))
    assert bench.worker.interrupt() is True
    bench.ear.wait_for_end(second)
    assert (bench.status(first), bench.status(second)) == ("cancelled", "completed")
    job = bench.store.get(first)
    assert job is not None and job.message("execution_interrupted") is not None


def test_stopping_puts_the_running_prompt_back(bench: Bench, tmp_path: Path) -> None:
    first = enter_gate(bench)
    second = bench.add(say("plain"))
    bench.worker.stop()
    assert bench.store.queue() == ([], [first, second])
    again = Bench(tmp_path, bench.store)
    Gate.opened.set()
    again.worker.start()
    again.ear.wait_for_end(second)
    assert bench.store.history() == [first, second]
    again.worker.stop()


def test_stopping_does_not_bring_back_what_was_cancelled(bench: Bench) -> None:
    first = enter_gate(bench)
    interrupted = Thread(target=bench.worker.interrupt, args=(first,))
    interrupted.start()
    interrupted.join()
    bench.worker.stop()
    assert bench.status(first) == "cancelled"


def test_stopping_before_the_first_step_puts_it_back(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    first = bench.add(say("plain"))
    stopper = Thread(target=bench.worker.stop)

    def on_hear(kind: str, data: dict[str, Any]) -> None:
        if kind == "status" and bench.worker.running is not None:  # claimed, not started
            stopper.start()
            assert bench.worker.running.cancel.wait(PATIENCE_S)

    bench.ear.on_hear = on_hear
    bench.worker.start()
    bench.ear.wait_for("execution_interrupted")
    stopper.join()
    assert bench.status(first) == "pending"
    bench.store.close()


@pytest.mark.parametrize("what", ["nan", "vast", "object"])
def test_odd_things_to_show_become_json(bench: Bench, what: str) -> None:
    job_id = bench.add(say(what))
    bench.ear.wait_for_end(job_id)
    assert bench.status(job_id) == "completed"
    [[said]] = [ui["said"] for ui in bench.shown(job_id).values()]
    assert isinstance(said, str)
    for _, _, data in bench.ear.heard:
        json.dumps(data, allow_nan=False)


@pytest.mark.parametrize("what", ["circle", "exit"])
def test_a_node_that_goes_wrong_badly_fails_alone(bench: Bench, what: str) -> None:
    bad, good = bench.add(say(what)), bench.add(say("plain"))
    bench.ear.wait_for_end(good)
    assert (bench.status(bad), bench.status(good)) == ("failed", "completed")
    bench.ear.wait_for("execution_error", prompt_id=bad)


def test_a_prompt_whose_nodes_are_gone_fails_alone(bench: Bench) -> None:
    bad = bench.add(graph(n1=("Uninstalled", {})))
    good = bench.add(say("plain"))
    bench.ear.wait_for_end(good)
    assert (bench.status(bad), bench.status(good)) == ("failed", "completed")


def test_a_listener_that_fails_does_no_harm(bench: Bench) -> None:
    def on_hear(kind: str, data: dict[str, Any]) -> None:
        raise RuntimeError("nobody can be reached")

    bench.ear.on_hear = on_hear
    first, second = bench.add(say("plain")), bench.add(say("plain"))
    bench.ear.wait_for_end(second)
    assert (bench.status(first), bench.status(second)) == ("completed", "completed")


def test_the_queue_waits_while_the_database_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "LOCKED_S", 0.0)
    Gate.entered, Gate.opened = Event(), Event()
    bench = Bench(tmp_path)
    failures = count_failures(bench, monkeypatch)
    bench.worker.start()
    first = enter_gate(bench)
    with locked(tmp_path / "jobs.db"):
        Gate.opened.set()
        assert failures["finish"].wait(PATIENCE_S)
        assert bench.store.history() == []
    bench.ear.wait_for_end(first)
    assert bench.store.history() == [first]

    second = str(uuid4())
    bench.store.add(second, say("plain"), {"create_time": 0, "client_id": "me"}, ["1"])
    with locked(tmp_path / "jobs.db"):
        bench.worker.wake()
        assert failures["claim"].wait(PATIENCE_S)
        assert bench.worker.interrupt() is False  # nothing runs, and nobody is kept waiting
    bench.ear.wait_for_end(second)
    assert bench.store.history() == [first, second]
    bench.worker.stop()
    bench.store.close()


def test_stopping_while_the_database_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The finished prompt could not be kept as such: it is in the queue again."""
    monkeypatch.setattr(database, "LOCKED_S", 0.0)
    Gate.entered, Gate.opened = Event(), Event()
    bench = Bench(tmp_path)
    failures = count_failures(bench, monkeypatch)
    bench.worker.start()
    first = enter_gate(bench)
    with locked(tmp_path / "jobs.db"):
        Gate.opened.set()
        assert failures["finish"].wait(PATIENCE_S)
        bench.worker.stop()
        bench.store.close()
    after = JobStore(tmp_path / "jobs.db")
    assert after.queue() == ([], [first])
    after.close()


def count_failures(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> dict[str, Event]:
    """Events that are set once the store has failed at `claim` and at `finish`."""
    failed = {"claim": Event(), "finish": Event()}
    for name, event in failed.items():
        act = getattr(bench.store, name)

        def watched(*given: Any, act: Any = act, event: Event = event) -> Any:
            try:
                return act(*given)
            except sqlite3.Error:
                event.set()
                raise

        monkeypatch.setattr(bench.store, name, watched)
    return failed


def test_freeing_waits_for_the_running_prompt(bench: Bench) -> None:
    first = enter_gate(bench)
    bench.worker.free()
    Gate.opened.set()
    bench.ear.wait_for_end(first)
    second = bench.add(say("plain"))
    bench.ear.wait_for_end(second)
    assert len(bench.executor.cache) == 1  # only the second one's output


class LateStore(JobStore):
    """The first to ask how many remain gets the answer late."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.asked, self.answer = Event(), Event()

    def remaining(self) -> int:
        count = super().remaining()
        if not self.asked.is_set():
            self.asked.set()
            assert self.answer.wait(PATIENCE_S)
        return count


def test_the_last_status_heard_is_the_newest(tmp_path: Path) -> None:
    store = LateStore(tmp_path / "jobs.db")
    bench = Bench(tmp_path, store)
    slow = Thread(target=bench.worker.say_status)
    slow.start()
    assert store.asked.wait(PATIENCE_S)
    store.add(str(uuid4()), say("plain"), {"create_time": 0}, ["1"])
    quick = Thread(target=bench.worker.say_status)
    quick.start()
    quick.join(0.2)  # it may not come before the one that asked earlier
    store.answer.set()
    slow.join()
    quick.join()
    told = [data["status"]["exec_info"]["queue_remaining"] for _, _, data in bench.ear.heard]
    assert told == [0, 1]
    store.close()
