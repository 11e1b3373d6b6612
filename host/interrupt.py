"""Ctrl-C and SIGTERM ask a run to stop; a second one ends the process at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from types import FrameType

from .exit_codes import CANCELLED


@contextmanager
def cancel_on_signals() -> Iterator[Event]:
    """Gives the event that the first signal sets. Use it in the main thread."""
    cancel = Event()

    def ask(number: int, frame: FrameType | None) -> None:
        if cancel.is_set():
            # Files are written beside and renamed, so there is nothing to tidy up first.
            os._exit(CANCELLED)
        cancel.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield cancel
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
