"""The last log lines, for the canvas's log panel."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from datetime import datetime, timezone

from .paths import without_places

KEPT_LINES = 300

LogEntry = dict[str, str]  # {"t": ISO time, "m": text with its line end}


class LogLines(logging.Handler):
    """Keeps the newest lines; `listener` gets each new one, in the thread that logs."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
        self.entries: deque[LogEntry] = deque(maxlen=KEPT_LINES)
        self.listener: Callable[[LogEntry], None] | None = None

    def emit(self, record: logging.LogRecord) -> None:
        # Without the traceback that `format` would add: it tells paths of this machine.
        plain = logging.makeLogRecord({**record.__dict__, "exc_info": None, "exc_text": None})
        when = datetime.fromtimestamp(record.created, timezone.utc).isoformat()
        # A word of a client with a line end in it must not look like a line of its own.
        text = without_places(self.format(plain)).replace("\n", "\n  ")
        entry = {"t": when, "m": f"{text}\n"}
        self.entries.append(entry)
        if self.listener is not None:
            self.listener(entry)
