"""Opening the SQLite file of the queue and the history."""

from __future__ import annotations

import logging
import sqlite3
import time
from pathlib import Path

logger = logging.getLogger(__name__)

LOCKED_S = 30.0  # how long to wait for another program that has the database open

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    entered INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    number REAL NOT NULL,
    status TEXT NOT NULL,
    starts INTEGER NOT NULL DEFAULT 0,    -- how often it ran until the process ended
    create_time INTEGER NOT NULL,
    workflow_id TEXT,
    duration INTEGER NOT NULL DEFAULT 0,  -- ms
    finished INTEGER,                     -- order in the history
    summary TEXT NOT NULL,
    result TEXT,                          -- JSON: {outputs, status, meta}
    request TEXT NOT NULL                 -- JSON: [prompt, extra_data, targets]
);
-- Wide enough that finding jobs does not read the rows, which are large.
CREATE INDEX IF NOT EXISTS by_place ON jobs (status, number, entered, id);
CREATE INDEX IF NOT EXISTS by_finish ON jobs (finished, id);
CREATE INDEX IF NOT EXISTS by_time ON jobs (status, create_time, duration, workflow_id);
PRAGMA user_version = 1;
"""


def open_database(path: Path) -> sqlite3.Connection:
    """For use from any thread, one at a time. A file that is no database any more is put aside.

    Raises sqlite3.OperationalError where the disk fails.
    """
    try:
        return _connect(path)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise
        # Not a database any more: what is left of it is kept for whoever can mend it.
        broken = path.with_name(f"{path.name}.broken-{int(time.time())}")
        for suffix in ("", "-wal", "-shm"):
            part = path.with_name(f"{path.name}{suffix}")
            if part.exists():
                part.replace(broken.with_name(f"{broken.name}{suffix}"))
        logger.error("'%s' cannot be read (%s); it is now '%s'", path.name, error, broken.name)
        return _connect(path)


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=LOCKED_S)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.executescript(_SCHEMA)
    except BaseException:
        db.close()
        raise
    return db
