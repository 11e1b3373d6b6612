"""The one thread that owns the model and works through the queue."""

from __future__ import annotations

import gc
import logging
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from threading import Event, Lock, Thread
from typing import Any

import torch

from ..executor import Executor
from .paths import without_places
from .records import Job, Message, Status
from .store import JobStore

logger = logging.getLogger(__name__)

# `listener(client id or None for everyone, message type, data)`, called in the worker's thread.
Listener = Callable[[str | None, str, dict[str, Any]], None]

HISTORY_MESSAGES = frozenset(
    {
        "execution_start",
        "execution_cached",
        "execution_success",
        "execution_error",
        "execution_interrupted",
    }
)
# Of a prompt that no client owns, everyone hears these.
TOLD_TO_ALL = frozenset({"progress_state", "progress", "preview", "execution_interrupted"})
STATUS_OF: dict[str, Status] = {"success": "completed", "error": "failed", "cancelled": "cancelled"}
RETRY_S = 1.0


@dataclass
class RunningJob:
    """`node` and `progress` are what a client that connects again needs to know."""

    job: Job
    cancel: Event = field(default_factory=Event)
    unwanted: bool = False  # cancelled by a client, not by the server's end
    node: str | None = None
    progress: dict[str, Any] | None = None


class Worker:
    def __init__(self, executor: Executor, store: JobStore, listener: Listener) -> None:
        self._executor = executor
        self._store = store
        self._listener = listener
        self._lock = Lock()
        self._saying = Lock()
        self._wake = Event()
        self._stopping = Event()
        self._free_asked = Event()
        self._running: RunningJob | None = None
        self._thread = Thread(target=self._work, name="wuerstchen-worker", daemon=True)

    @property
    def running(self) -> RunningJob | None:
        return self._running

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """A prompt has been queued."""
        self._wake.set()

    def interrupt(self, job_id: str | None = None) -> bool:
        """Cancels the running prompt, or only that one; says whether it was running."""
        with self._lock:
            running = self._running
            if running is None or job_id not in (None, running.job.id):
                return False
            running.unwanted = True
            running.cancel.set()
            return True

    def say_status(self) -> None:
        """Tells every client how many prompts wait or run; from any thread."""
        with self._saying:  # an old number must not be heard after a newer one
            self._tell(None, "status", status_of(self._store))

    def free(self) -> None:
        """Lets go of cached outputs and loaded weights, between two prompts."""
        self._free_asked.set()
        self._wake.set()

    def stop(self) -> None:
        """Puts the running prompt back into the queue and ends the thread."""
        self._stopping.set()
        with self._lock:
            if self._running is not None:
                self._running.cancel.set()
        self._wake.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._stopping.is_set():
            try:
                self._take_turn()
            except Exception:  # a mistake of ours: the queue must go on
                logger.exception("the worker failed")
                self._stopping.wait(RETRY_S)

    def _take_turn(self) -> None:
        self._wake.clear()
        running = self._keep_trying(self._claim)
        # After the claim, so that it counts for a prompt that was sent after it.
        if self._free_asked.is_set():
            self._free_asked.clear()
            self._free()
        if running is None:
            self._wake.wait()
            return
        self.say_status()
        self._run(running)

    def _claim(self) -> RunningJob | None:
        # In one with the claim, so that a cancel always finds a prompt waiting or running.
        with self._lock:
            job = self._store.claim()
            self._running = RunningJob(job) if job else None
        return self._running

    def _run(self, running: RunningJob) -> None:
        job = running.job
        logger.info("prompt %s starts", job.id)
        started = time.monotonic()
        ended = self._execute(running)
        logger.info("prompt %s: %s in %.1f s", job.id, ended.status, time.monotonic() - started)
        with self._lock:
            self._running = None
        if ended.status == "cancelled" and self._stopping.is_set() and not running.unwanted:
            self._keep_trying(lambda: self._store.requeue(job.id))
            return
        # A client may read the history as soon as it hears that the prompt is done.
        self._keep_trying(lambda: self._store.finish(ended))
        self.say_status()
        if job.client_id is not None:
            self._tell(job.client_id, "executing", {"node": None, "prompt_id": job.id})

    def _execute(self, running: RunningJob) -> Job:
        """The job as it ended, with nothing in it but plain JSON."""
        job = running.job
        if self._stopping.is_set():  # `stop` came before there was anything to cancel
            running.cancel.set()
        messages: list[Message] = []

        def on_event(kind: str, data: dict[str, Any]) -> None:
            if kind == "execution_error":
                data["exception_message"] = without_places(data["exception_message"])
            if kind in HISTORY_MESSAGES:
                messages.append((kind, data))
            elif kind == "progress_state":
                running.progress = data
            elif kind == "executing":
                running.node = data["node"]
            if job.client_id is not None or kind in TOLD_TO_ALL:
                self._tell(job.client_id, kind, data)

        try:
            result = self._executor.run(
                job.prompt,
                job.targets,
                prompt_id=job.id,
                extra_data=job.extra_data,
                on_event=on_event,
                cancel=running.cancel,
            )
            status = STATUS_OF[result.status]
            outputs, meta = result.outputs, result.meta
        except BaseException:
            # A prompt of an earlier server whose nodes are gone now, a node that ends the
            # process (`sys.exit`), or a mistake of ours: the queue must go on.
            logger.exception("prompt %s could not be run", job.id)
            status, outputs, meta = "failed", {}, {}
            on_event("execution_error", _unrunnable(job))
        return replace(job, status=status, outputs=outputs, meta=meta, messages=messages)

    def _tell(self, client_id: str | None, kind: str, data: dict[str, Any]) -> None:
        try:
            self._listener(client_id, kind, data)
        except Exception:  # what cannot be shown must not fail what can be made
            logger.exception("a message '%s' could not be sent", kind)

    def _keep_trying(self, act: Callable[[], Any]) -> Any:
        """What `act` gives. While the disk is full the queue waits, because nothing may be lost;
        None when the server stops meanwhile."""
        said = False
        while True:
            try:
                return act()
            except sqlite3.Error as error:
                if not said:
                    logger.error("the job database cannot be written (%s); waiting", error)
                said = True
                if self._stopping.wait(RETRY_S):
                    return None

    def _free(self) -> None:
        self._executor.free()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def status_of(store: JobStore) -> dict[str, Any]:
    return {"status": {"exec_info": {"queue_remaining": store.remaining()}}}


def _unrunnable(job: Job) -> dict[str, Any]:
    return {
        "prompt_id": job.id,
        "node_id": "",
        "node_type": "",
        "executed": [],
        "exception_message": "This prompt cannot be run; the server's log says why.\n",
        "exception_type": "RuntimeError",
        "traceback": [],
        "current_inputs": {},
        "current_outputs": [],
        "timestamp": int(time.time() * 1000),
    }
