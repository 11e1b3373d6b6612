"""A prompt that the server accepted, and the shapes in which ComfyUI's clients read it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Status = Literal["pending", "in_progress", "completed", "failed", "cancelled"]
STATUSES: tuple[Status, ...] = ("pending", "in_progress", "completed", "failed", "cancelled")
FINISHED: tuple[Status, ...] = ("completed", "failed", "cancelled")

Message = tuple[str, dict[str, Any]]  # what was sent while it ran: type and data

# What the canvas can show of a node's `ui`, by key; other files only by their ending.
MEDIA = frozenset({"images", "video", "audio", "3d", "text"})
TEXT_SUFFIXES = (".txt", ".md", ".json")
MAX_PREVIEW_TEXT = 1024


@dataclass(frozen=True)
class Job:
    """`number` is its place in the queue, the smallest first; `targets` the outputs that run."""

    id: str
    number: float
    status: Status
    prompt: dict[str, Any]
    extra_data: dict[str, Any]
    targets: list[str]
    outputs: dict[str, Any] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)
    messages: list[Message] = field(default_factory=list)

    @property
    def client_id(self) -> str | None:
        return self.extra_data.get("client_id")

    @property
    def create_time(self) -> int:
        """ms since 1970."""
        return self.extra_data["create_time"]

    @property
    def workflow_id(self) -> str | None:
        about = self.extra_data.get("extra_pnginfo")
        workflow = about.get("workflow") if isinstance(about, dict) else None
        found = workflow.get("id") if isinstance(workflow, dict) else None
        return found if isinstance(found, str) else None

    def message(self, *kinds: str) -> dict[str, Any] | None:
        return next((data for kind, data in self.messages if kind in kinds), None)


def shown_number(number: float) -> float | int:
    return int(number) if number.is_integer() else number


# What the database keeps of a job are the parts of these entries, as JSON: a thousand graphs of
# 30 KB are sent without being read.


def request_of(job: Job) -> list[Any]:
    return [job.prompt, job.extra_data, job.targets]


def result_of(job: Job) -> dict[str, Any]:
    return {"outputs": job.outputs, "status": _execution_status(job), "meta": job.meta}


def queue_entry(number: float, job_id: str, request: str) -> str:
    """An entry of `/queue`, and of `prompt` in `/history`; `request` is JSON of `request_of`."""
    return f"[{json.dumps(shown_number(number))}, {json.dumps(job_id)}, {request[1:]}"


def history_entry(number: float, job_id: str, request: str, result: str) -> str:
    """A member of `/history`; `result` is JSON of `result_of`."""
    entry = queue_entry(number, job_id, request)
    return f'{json.dumps(job_id)}: {{"prompt": {entry}, {result[1:]}'


def read_job(number: float, job_id: str, request: str, result: str | None, status: Status) -> Job:
    prompt, extra_data, targets = json.loads(request)
    job = Job(job_id, number, status, prompt, extra_data, targets)
    if result is None:
        return job
    kept = json.loads(result)
    messages = [(kind, data) for kind, data in kept["status"]["messages"]]
    return replace(job, outputs=kept["outputs"], meta=kept["meta"], messages=messages)


def summary(job: Job) -> dict[str, Any]:
    """An entry of `/jobs` without its `status`, which changes more often than the rest."""
    start = job.message("execution_start")
    end = job.message("execution_success", "execution_error", "execution_interrupted")
    shown = list(_shown_outputs(job.outputs))
    entry = {
        "id": job.id,
        "priority": shown_number(job.number),
        "create_time": job.create_time,
        "execution_start_time": start and start["timestamp"],
        "execution_end_time": end and end["timestamp"],
        "execution_error": job.message("execution_error"),
        "outputs_count": sum(1 for _, _, item in _items(job.outputs) if isinstance(item, dict)),
        "previewable_outputs_count": sum(1 for rank, _ in shown if rank < _TEXT),
        "preview_output": min(shown, key=lambda one: one[0])[1] if shown else None,
        "workflow_id": job.workflow_id,
    }
    return {key: value for key, value in entry.items() if value is not None}


def detail(job: Job) -> dict[str, Any]:
    """The answer of `/jobs/{id}`."""
    entry = {**summary(job), "status": job.status}
    if job.status in FINISHED:
        entry["outputs"] = job.outputs
        entry["execution_status"] = _execution_status(job)
        entry["workflow"] = {"prompt": job.prompt, "extra_data": job.extra_data}
    return entry


def _execution_status(job: Job) -> dict[str, Any]:
    done = job.status == "completed"
    return {
        "status_str": "success" if done else "error",
        "completed": done,
        "messages": [list(message) for message in job.messages],
    }


# Which output stands for the whole job: a saved picture before a shown one, words last.
_SAVED, _SHOWN, _TEXT_FILE, _TEXT = range(4)


def _shown_outputs(outputs: dict[str, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    """(rank, what `preview_output` would be) for each output that the canvas can show."""
    for node_id, kind, item in _items(outputs):
        about = {"nodeId": node_id, "mediaType": kind}
        if isinstance(item, dict):
            is_text_file = str(item.get("filename", "")).lower().endswith(TEXT_SUFFIXES)
            if kind in MEDIA or is_text_file:
                saved = item.get("type") == "output"
                rank = _TEXT_FILE if is_text_file else _SAVED if saved else _SHOWN
                yield rank, {**about, **item}
        elif kind == "text":
            text = str(item)
            cut = {"truncated": True} if len(text) > MAX_PREVIEW_TEXT else {}
            yield _TEXT, {"content": text[:MAX_PREVIEW_TEXT], **cut, **about}


def _items(outputs: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    for node_id, ui in outputs.items():
        for kind, items in ui.items():
            if isinstance(items, list):
                yield from ((node_id, kind, item) for item in items)
