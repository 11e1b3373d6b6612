"""What a person sees of a run: bars on a terminal, plain lines elsewhere."""

import io

import pytest

from comfyui_wuerstchen.host import progress_view
from comfyui_wuerstchen.host.progress_view import ProgressView

PROMPT = {"1": {"class_type": "Sampler", "inputs": {}, "_meta": {"title": "Stage C"}}}


class Terminal(io.StringIO):
    def isatty(self):
        return True


def play(stream):
    node = {"display_node_id": "1", "state": "finished"}
    with ProgressView(PROMPT, stream=stream) as view:
        view.on_event("executing", {"display_node": "1"})
        for step in range(1, 4):
            view.on_event("progress", {"value": float(step), "max": 3.0})
        view.on_event("progress_state", {"nodes": {"1": node}})
    return stream.getvalue()


def test_a_bar_with_title_and_steps_on_a_terminal():
    shown = play(Terminal())
    assert "Stage C: 100%" in shown and "3/3" in shown


def test_plain_lines_elsewhere(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(progress_view, "LINE_EVERY_S", -1.0)
    monkeypatch.setattr(progress_view, "SHOW_AFTER_S", 0.0)
    lines = play(io.StringIO()).splitlines()
    assert lines[0] == "Stage C: 1 of 3 steps, 0 s left"
    assert lines[-1] == "Stage C: 0.0 s"
