"""The progress of a run on a terminal: a bar for each node with steps, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

from tqdm import tqdm

from .declarations import Prompt, node_title

LINE_EVERY_S = 10.0
SHOW_AFTER_S = 0.5


class ProgressView:
    """Listens to the events of one run. With `quiet` it shows nothing."""

    def __init__(self, prompt: Prompt, quiet: bool = False, stream: TextIO | None = None) -> None:
        self._prompt = prompt
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._bar: tqdm | None = None
        self._node = ""
        self._started = self._last_line = time.monotonic()

    def __enter__(self) -> ProgressView:
        return self

    def __exit__(self, *error: object) -> None:
        self._close_bar()

    def on_event(self, kind: str, data: dict[str, Any]) -> None:
        if self._quiet:
            return
        if kind == "executing":
            self._start(data["display_node"])
        elif kind == "progress":
            self._step(int(data["value"]), int(data["max"]))
        elif kind == "progress_state":
            states = {node["display_node_id"]: node["state"] for node in data["nodes"].values()}
            if states.get(self._node) == "finished":
                self._finish()

    @property
    def _title(self) -> str:
        return node_title(self._prompt, self._node)

    def _start(self, node_id: str) -> None:
        self._close_bar()
        self._node = node_id
        self._started = self._last_line = time.monotonic()

    def _step(self, value: int, total: int) -> None:
        if self._stream.isatty():
            if self._bar is None:
                self._bar = tqdm(
                    desc=self._title, total=total, file=self._stream, unit="step", leave=True
                )
            self._bar.total = total
            self._bar.update(value - self._bar.n)
        elif time.monotonic() - self._last_line > LINE_EVERY_S:
            self._last_line = time.monotonic()
            left = (self._last_line - self._started) / max(value, 1) * (total - value)
            self._write(f"{self._title}: {value} of {total} steps, {left:.0f} s left")

    def _finish(self) -> None:
        spent = time.monotonic() - self._started
        had_bar = self._bar is not None
        self._close_bar()
        if not had_bar and spent >= SHOW_AFTER_S:
            self._write(f"{self._title}: {spent:.1f} s")
        self._node = ""

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _write(self, line: str) -> None:
        self._stream.write(f"{line}\n")
        self._stream.flush()
