"""The queue and the history in SQLite, so that no accepted prompt is ever lost.

A prompt is one row from the moment it is accepted. A process that is killed leaves its running
prompt `in_progress`; opening the store puts that one back into the queue at its old place.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import RLock
from typing import Any

from .records import FINISHED, STATUSES, Job, Message, Status, summary

logger = logging.getLogger(__name__)

KEPT_HISTORY = 10_000  # finished jobs; the oldest go first

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    entered INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    number REAL NOT NULL,
    status TEXT NOT NULL,
    create_time INTEGER NOT NULL,
    workflow_id TEXT,
    duration INTEGER NOT NULL DEFAULT 0,  -- ms
    finished INTEGER,                     -- order in the history
    summary TEXT NOT NULL,
    request TEXT NOT NULL,                -- prompt, extra_data, targets
    result TEXT                           -- outputs, meta, messages
);
CREATE INDEX IF NOT EXISTS by_place ON jobs (status, number, entered);
CREATE INDEX IF NOT EXISTS by_finish ON jobs (finished) WHERE finished IS NOT NULL;
PRAGMA user_version = 1;
"""
_WHOLE = "id, number, status, request, result"
_SORTED_BY = {"created_at": "create_time", "execution_duration": "duration"}


class DuplicateJob(Exception):
    """A job of this id is already there."""


class JobStore:
    """Safe to use from any thread. Raises sqlite3.Error where the disk fails."""

    def __init__(self, path: Path) -> None:
        self._lock = RLock()
        self._db = _open(path)
        back = self._db.execute(
            "UPDATE jobs SET status = 'pending' WHERE status = 'in_progress'"
        ).rowcount
        if back:
            logger.info("%d unfinished prompt(s) of the last run are queued again", back)

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def add(
        self,
        job_id: str,
        prompt: dict[str, Any],
        extra_data: dict[str, Any],
        targets: Sequence[str],
        *,
        number: float | None = None,
        front: bool = False,
    ) -> Job:
        """Queues a prompt: at the end, before all others with `front`, or at `number`.

        Raises DuplicateJob.
        """
        with self._transaction() as db:
            if number is None:
                (largest,) = db.execute("SELECT max(abs(number)) FROM jobs").fetchone()
                number = 0.0 if largest is None else largest + 1
                number = -number if front else number
            job = Job(job_id, number, "pending", prompt, extra_data, list(targets))
            request = {"prompt": prompt, "extra_data": extra_data, "targets": job.targets}
            try:
                db.execute(
                    "INSERT INTO jobs (id, number, status, create_time, workflow_id, summary,"
                    " request) VALUES (?, ?, 'pending', ?, ?, ?, ?)",
                    (
                        job_id,
                        number,
                        job.create_time,
                        job.workflow_id,
                        json.dumps(summary(job)),
                        json.dumps(request),
                    ),
                )
            except sqlite3.IntegrityError:
                raise DuplicateJob(job_id) from None
        return job

    def claim(self) -> Job | None:
        """The next prompt, now `in_progress`; None when nothing waits."""
        with self._transaction() as db:
            row = db.execute(
                f"SELECT {_WHOLE} FROM jobs WHERE status = 'pending'"
                " ORDER BY number, entered LIMIT 1"
            ).fetchone()
            if row is None:
                return None
            db.execute("UPDATE jobs SET status = 'in_progress' WHERE id = ?", (row[0],))
        return _job(row, status="in_progress")

    def requeue(self, job_id: str) -> None:
        """Puts a claimed prompt back at its old place."""
        with self._transaction() as db:
            db.execute("UPDATE jobs SET status = 'pending' WHERE id = ?", (job_id,))

    def finish(
        self,
        job: Job,
        status: Status,
        outputs: dict[str, Any],
        meta: dict[str, Any],
        messages: Sequence[Message],
    ) -> None:
        """Moves a claimed prompt into the history."""
        ended = replace(job, status=status, outputs=outputs, meta=meta, messages=list(messages))
        about = summary(ended)
        duration = about.get("execution_end_time", 0) - about.get("execution_start_time", 0)
        result = {"outputs": outputs, "meta": meta, "messages": ended.messages}
        with self._transaction() as db:
            db.execute(
                "UPDATE jobs SET status = ?, summary = ?, result = ?, duration = ?, finished ="
                " (SELECT coalesce(max(finished), 0) + 1 FROM jobs) WHERE id = ?",
                (status, json.dumps(about), json.dumps(result), max(duration, 0), job.id),
            )
            db.execute(
                "DELETE FROM jobs WHERE finished <= (SELECT max(finished) FROM jobs) - ?",
                (KEPT_HISTORY,),
            )

    def drop_pending(self, job_ids: Collection[str] | None = None) -> list[str]:
        """Takes waiting prompts out of the queue, all of them with None; returns their ids."""
        return self._delete(("pending",), job_ids)

    def drop_history(self, job_ids: Collection[str] | None = None) -> list[str]:
        return self._delete(FINISHED, job_ids)

    def _delete(self, statuses: Sequence[Status], job_ids: Collection[str] | None) -> list[str]:
        with self._transaction() as db:
            rows = db.execute(
                f"SELECT id FROM jobs WHERE status IN ({_marks(statuses)})", statuses
            ).fetchall()
            gone = [row[0] for row in rows if job_ids is None or row[0] in job_ids]
            db.executemany("DELETE FROM jobs WHERE id = ?", [(job_id,) for job_id in gone])
        return gone

    def remaining(self) -> int:
        """How many prompts wait or run."""
        (count,) = self._read("SELECT count(*) FROM jobs WHERE status IN ('pending','in_progress')")
        return count[0]

    def get(self, job_id: str) -> Job | None:
        rows = self._read(f"SELECT {_WHOLE} FROM jobs WHERE id = ?", job_id)
        return _job(rows[0]) if rows else None

    def queue(self) -> tuple[list[Job], list[Job]]:
        """The running prompts and the waiting ones, the next first."""
        rows = self._read(
            f"SELECT {_WHOLE} FROM jobs WHERE status IN ('pending', 'in_progress')"
            " ORDER BY number, entered"
        )
        jobs = [_job(row) for row in rows]
        running = [job for job in jobs if job.status == "in_progress"]
        return running, [job for job in jobs if job.status == "pending"]

    def history(self, limit: int | None = None, offset: int = -1) -> list[Job]:
        """Finished jobs, the oldest first; with a negative offset the newest `limit`."""
        (row,) = self._read("SELECT count(*) FROM jobs WHERE finished IS NOT NULL")
        if offset < 0:
            offset = 0 if limit is None else max(row[0] - limit, 0)
        rows = self._read(
            f"SELECT {_WHOLE} FROM jobs WHERE finished IS NOT NULL"
            " ORDER BY finished LIMIT ? OFFSET ?",
            -1 if limit is None else limit,
            offset,
        )
        return [_job(row) for row in rows]

    def page(
        self,
        statuses: Collection[Status] = STATUSES,
        *,
        workflow_id: str | None = None,
        sort_by: str = "created_at",
        descending: bool = True,
        limit: int | None = None,
        offset: int = 0,
    ) -> tuple[list[dict[str, Any]], int]:
        """One page of summaries and how many jobs there are in all.

        `sort_by`: "created_at" or "execution_duration".
        """
        condition, values = f"status IN ({_marks(statuses)})", list(statuses)
        if workflow_id is not None:
            condition, values = f"{condition} AND workflow_id = ?", [*values, workflow_id]
        way = "DESC" if descending else "ASC"
        with self._lock:
            (total,) = self._read(f"SELECT count(*) FROM jobs WHERE {condition}", *values)
            rows = self._read(
                f"SELECT summary, status FROM jobs WHERE {condition} ORDER BY"
                f" {_SORTED_BY[sort_by]} {way}, entered {way} LIMIT ? OFFSET ?",
                *values,
                -1 if limit is None else limit,
                offset,
            )
        return [{**json.loads(row[0]), "status": row[1]} for row in rows], total[0]

    def outputs_in_history(self) -> Iterator[dict[str, Any]]:
        """What each finished job's nodes gave to show: `outputs` by node id."""
        for row in self._read("SELECT result FROM jobs WHERE finished IS NOT NULL"):
            yield json.loads(row[0])["outputs"]

    def _read(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._db.execute(query, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # SQLite ends it itself when the disk is full
                    self._db.execute("ROLLBACK")
                raise


def _open(path: Path) -> sqlite3.Connection:
    try:
        return _connect(path)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise
        # Not a database any more: what is left of it is kept for whoever can mend it.
        broken = path.with_name(f"{path.name}.broken")
        for suffix in ("", "-wal", "-shm"):
            part = path.with_name(f"{path.name}{suffix}")
            if part.exists():
                part.replace(broken.with_name(f"{broken.name}{suffix}"))
        logger.error("'%s' cannot be read (%s); it is now '%s'", path.name, error, broken.name)
        return _connect(path)


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=30)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")  # an accepted prompt survives a power cut
        db.executescript(_SCHEMA)
    except BaseException:
        db.close()
        raise
    return db


def _job(row: Sequence[Any], status: Status | None = None) -> Job:
    job_id, number, kept_status, request, result = row
    more = json.loads(result) if result else {}
    if more:
        more["messages"] = [(kind, data) for kind, data in more["messages"]]
    return Job(job_id, number, status or kept_status, **json.loads(request), **more)


def _marks(values: Iterable[Any]) -> str:
    return ", ".join("?" for _ in values)
