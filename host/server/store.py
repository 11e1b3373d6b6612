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

from .database import open_database
from .records import (
    FINISHED,
    STATUSES,
    Job,
    Status,
    history_entry,
    queue_entry,
    read_job,
    request_of,
    result_of,
    summary,
)

logger = logging.getLogger(__name__)

KEPT_HISTORY = 10_000  # finished jobs; the oldest go first
SUSPICIOUS_STARTS = 3

_WHOLE = "number, id, request, result, status"
_REMAINING = "status IN ('pending', 'in_progress')"
_SORTED_BY = {"created_at": "create_time", "execution_duration": "duration"}


class DuplicateJob(Exception):
    """A job of this id is already there."""


class JobStore:
    """Safe to use from any thread. Raises sqlite3.Error where the disk fails.

    What was running when the last process ended is queued again, or with `try_again` off
    cancelled.
    """

    def __init__(self, path: Path, try_again: bool = True) -> None:
        self._lock = RLock()
        self._db = open_database(path)
        self._recover(try_again)
        self._remaining = self._count_remaining()

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
                # Counts what came before, as ComfyUI does; the numbers of clients change nothing.
                query = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'jobs'"
                count = float(db.execute(query).fetchone()[0])
                number = -count if front else count
            job = Job(job_id, number, "pending", prompt, extra_data, list(targets))
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
                        json.dumps(request_of(job)),
                    ),
                )
            except sqlite3.IntegrityError:
                raise DuplicateJob(job_id) from None
        return job

    def claim(self) -> Job | None:
        """The next prompt, now `in_progress`; None when nothing waits.

        A power cut may undo that, so that the prompt waits again.
        """
        with self._transaction(lasting=False) as db:
            row = db.execute(
                f"SELECT {_WHOLE} FROM jobs WHERE status = 'pending'"
                " ORDER BY number, entered LIMIT 1"
            ).fetchone()
            if row is None:
                return None
            job = replace(read_job(*row), status="in_progress")
            db.execute(
                "UPDATE jobs SET status = 'in_progress', starts = starts + 1 WHERE id = ?",
                (job.id,),
            )
        return job

    def requeue(self, job_id: str) -> None:
        """Puts a claimed prompt back at its old place."""
        with self._transaction() as db:
            db.execute(
                "UPDATE jobs SET status = 'pending', starts = starts - 1 WHERE id = ?", (job_id,)
            )

    def _recover(self, try_again: bool) -> None:
        """Decides what becomes of prompts that were running when the process ended."""
        rows = self._read(f"SELECT starts, {_WHOLE} FROM jobs WHERE status = 'in_progress'")
        for starts, *row in rows:
            job = read_job(*row)
            if not try_again:
                self.finish(replace(job, status="cancelled"))
            elif starts >= SUSPICIOUS_STARTS:
                logger.warning(
                    "prompt %s was running at the last %d ends of this server; if it is what ends "
                    "it, start once with --skip-unfinished",
                    job.id,
                    starts,
                )
        with self._transaction() as db:
            db.execute("UPDATE jobs SET status = 'pending' WHERE status = 'in_progress'")
        if rows and try_again:
            logger.info("%d unfinished prompt(s) of the last run are queued again", len(rows))

    def finish(self, ended: Job) -> None:
        """Moves a claimed prompt into the history, as it ended."""
        about = summary(ended)
        duration = about.get("execution_end_time", 0) - about.get("execution_start_time", 0)
        result = json.dumps(result_of(ended))
        with self._transaction() as db:
            db.execute(
                "UPDATE jobs SET status = ?, summary = ?, result = ?, duration = ?, finished ="
                " (SELECT coalesce(max(finished), 0) + 1 FROM jobs) WHERE id = ?",
                (ended.status, json.dumps(about), result, max(duration, 0), ended.id),
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
            wanted = None if job_ids is None else set(job_ids)
            gone = [row[0] for row in rows if wanted is None or row[0] in wanted]
            db.executemany("DELETE FROM jobs WHERE id = ?", [(job_id,) for job_id in gone])
        return gone

    def remaining(self) -> int:
        """How many prompts wait or run; without a look at the disk."""
        return self._remaining

    def get(self, job_id: str) -> Job | None:
        rows = self._read(f"SELECT {_WHOLE} FROM jobs WHERE id = ?", job_id)
        return read_job(*rows[0]) if rows else None

    def queue(self) -> tuple[list[str], list[str]]:
        """The ids of the running prompts and of the waiting ones, the next first."""
        rows = self._read(
            f"SELECT id, status FROM jobs WHERE {_REMAINING} ORDER BY number, entered"
        )
        running = [job_id for job_id, status in rows if status == "in_progress"]
        return running, [job_id for job_id, status in rows if status == "pending"]

    def history(self, limit: int | None = None, offset: int = -1) -> list[str]:
        """The ids of finished jobs, the oldest first; with a negative offset the newest `limit`."""
        query = "SELECT id FROM jobs WHERE finished IS NOT NULL ORDER BY finished"
        if offset < 0 and limit is not None:
            newest_first = self._read(f"{query} DESC LIMIT ?", limit)
            return [row[0] for row in reversed(newest_first)]
        limit = -1 if limit is None else limit
        return [row[0] for row in self._read(f"{query} LIMIT ? OFFSET ?", limit, max(offset, 0))]

    def queue_entries(self, job_ids: Iterable[str]) -> list[str]:
        """The entries of `/queue` for those that are still there, as JSON."""
        query = "SELECT number, id, request FROM jobs WHERE id = ?"
        return [queue_entry(*row) for job_id in job_ids for row in self._read(query, job_id)]

    def history_entries(self, job_ids: Iterable[str]) -> list[str]:
        """The members of `/history` for those that are finished, as JSON: `"id": {…}`."""
        query = "SELECT number, id, request, result FROM jobs WHERE id = ? AND result IS NOT NULL"
        return [history_entry(*row) for job_id in job_ids for row in self._read(query, job_id)]

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
            order = f"ORDER BY {_SORTED_BY[sort_by]} {way}, entered {way}"
            rows = self._read(
                "SELECT summary, status FROM jobs WHERE entered IN"
                f" (SELECT entered FROM jobs WHERE {condition} {order} LIMIT ? OFFSET ?) {order}",
                *values,
                -1 if limit is None else limit,
                offset,
            )
        return [{**json.loads(row[0]), "status": row[1]} for row in rows], total[0]

    def outputs_in_history(self) -> Iterator[dict[str, Any]]:
        """What each finished job's nodes gave to show: `outputs` by node id."""
        for row in self._read("SELECT result FROM jobs WHERE finished IS NOT NULL"):
            yield json.loads(row[0])["outputs"]

    def _count_remaining(self) -> int:
        return self._db.execute(f"SELECT count(*) FROM jobs WHERE {_REMAINING}").fetchone()[0]

    def _read(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._db.execute(query, values).fetchall()

    @contextmanager
    def _transaction(self, lasting: bool = True) -> Iterator[sqlite3.Connection]:
        """`lasting`: waits for the disk, so that what is written survives a power cut."""
        with self._lock:
            self._db.execute(f"PRAGMA synchronous = {'FULL' if lasting else 'NORMAL'}")
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                remaining = self._count_remaining()
                self._db.execute("COMMIT")
                self._remaining = remaining
            except BaseException:
                if self._db.in_transaction:  # SQLite ends it itself when the disk is full
                    self._db.execute("ROLLBACK")
                raise


def _marks(values: Iterable[Any]) -> str:
    return ", ".join("?" for _ in values)
