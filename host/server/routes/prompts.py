"""Accepting prompts, stopping them, and the WebSocket that tells how they go."""

from __future__ import annotations

import asyncio
import logging
import math
import sqlite3
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn
from uuid import UUID, uuid4

from aiohttp import web

from ....nodes.runtime import use
from ...folders import HostSurroundings
from ...validate import Validation, validate
from ..answers import Refusal, read_json, read_object
from ..context import Host, host_of
from ..records import shown_number
from ..store import DuplicateJob
from ..worker import status_of

logger = logging.getLogger(__name__)

# Keys of ComfyUI's paid services, which the canvas may send along; never kept.
SECRETS = frozenset({"auth_token_comfy_org", "api_key_comfy_org"})


class BadPrompt(Exception):
    """A prompt that is refused; `error` is what ComfyUI's clients read."""

    def __init__(
        self, error: dict[str, Any], node_errors: Mapping[str, Any] | None = None, status: int = 400
    ) -> None:
        super().__init__(error["message"])
        self.answer = {"error": error, "node_errors": dict(node_errors or {})}
        self.status = status


@dataclass(frozen=True)
class PromptRequest:
    """The body of `POST /prompt`, checked."""

    prompt: Any
    prompt_id: str
    extra_data: dict[str, Any]
    targets: list[str] | None
    number: float | None
    front: bool

    @classmethod
    def parse(cls, body: Any) -> PromptRequest:
        """Raises BadPrompt."""
        if not isinstance(body, dict) or "prompt" not in body:
            _refuse("no_prompt", "No prompt provided", "No prompt provided")
        extra_data = body.get("extra_data") or {}
        if not isinstance(extra_data, dict):
            _refuse("invalid_request", "extra_data must be an object")
        extra_data = {key: value for key, value in extra_data.items() if key not in SECRETS}
        client_id = body.get("client_id")
        if client_id is not None:
            if not isinstance(client_id, str):
                _refuse("invalid_request", "client_id must be a string")
            extra_data["client_id"] = client_id
        targets = body.get("partial_execution_targets")
        if targets is not None and not (
            isinstance(targets, list) and all(isinstance(target, str) for target in targets)
        ):
            _refuse("invalid_request", "partial_execution_targets must be a list of node ids")
        return cls(
            prompt=body["prompt"],
            prompt_id=_prompt_id(body.get("prompt_id")),
            extra_data={**extra_data, "create_time": int(time.time() * 1000)},
            targets=targets,
            number=_number(body["number"]) if "number" in body else None,
            front=bool(body.get("front")),
        )


def _prompt_id(given: Any) -> str:
    if given is None:
        return str(uuid4())
    try:
        if isinstance(given, str) and str(UUID(given)) == given:
            return given
    except ValueError:
        pass
    _refuse(
        "invalid_prompt_id",
        "prompt_id must be a valid UUID",
        "Write it in lowercase with hyphens, or leave it out to get one.",
    )


def _number(given: Any) -> float:
    try:
        number = float(given)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        _refuse("invalid_request", "number must be a finite number")
    return number


def _refuse(kind: str, message: str, details: str = "", status: int = 400) -> NoReturn:
    error = {"type": kind, "message": message, "details": details, "extra_info": {}}
    raise BadPrompt(error, status=status)


async def post_prompt(request: web.Request) -> web.Response:
    host = host_of(request)
    try:
        body = await _read_body(request)
        asked = PromptRequest.parse(body)
        validation, number = await asyncio.to_thread(_accept, host, asked)
    except BadPrompt as bad:
        logger.info("a prompt was refused: %s", bad)
        return web.json_response(bad.answer, status=bad.status)
    # Clients hear of the prompt before it starts.
    host.worker.say_status()
    host.worker.wake()
    return web.json_response(
        {
            "prompt_id": asked.prompt_id,
            "number": shown_number(number),
            "node_errors": validation.node_errors,
        }
    )


async def _read_body(request: web.Request) -> Any:
    try:
        return await read_json(request)
    except Refusal as refusal:
        _refuse("invalid_request", str(refusal), status=refusal.status)


def _accept(host: Host, asked: PromptRequest) -> tuple[Validation, float]:
    with use(HostSurroundings(host.folders)):
        validation = validate(asked.prompt, host.nodes.classes, asked.targets)
    if validation.error is not None:
        raise BadPrompt(validation.error, validation.node_errors)
    try:
        job = host.store.add(
            asked.prompt_id,
            asked.prompt,
            asked.extra_data,
            validation.outputs,
            number=asked.number,
            front=asked.front,
        )
    except DuplicateJob:
        _refuse("invalid_prompt_id", "This prompt_id has been used already", asked.prompt_id)
    except sqlite3.Error as error:
        logger.error("a prompt could not be kept: %s", error)
        _refuse("not_kept", "The prompt could not be kept; is the disk full?", status=507)
    return validation, float(job.number)


async def get_prompt(request: web.Request) -> web.Response:
    return web.json_response(status_of(host_of(request).store)["status"])


async def post_interrupt(request: web.Request) -> web.Response:
    body = await read_object(request) if request.can_read_body else {}
    prompt_id = body.get("prompt_id")
    await asyncio.to_thread(host_of(request).worker.interrupt, prompt_id or None)
    return web.Response()


async def post_free(request: web.Request) -> web.Response:
    body = await read_object(request)
    if body.get("unload_models") or body.get("free_memory"):
        host_of(request).worker.free()
    return web.Response()


async def websocket(request: web.Request) -> web.StreamResponse:
    host = host_of(request)
    client_id = request.query.get("clientId")

    def greeting() -> Iterator[tuple[str, dict[str, Any]]]:
        yield "status", status_of(host.store)
        running = host.worker.running
        if running is not None and client_id and running.job.client_id == client_id:
            # The page was loaded again while its prompt runs.
            if running.node is not None:
                yield "executing", {"node": running.node, "prompt_id": running.job.id}
            if running.progress is not None:
                yield "progress_state", running.progress

    return await host.hub.serve(request, greeting)


ROUTES = (
    web.get("/ws", websocket),
    web.get("/prompt", get_prompt),
    web.post("/prompt", post_prompt),
    web.post("/interrupt", post_interrupt),
    web.post("/free", post_free),
)
