"""One call of one node: gathering its inputs, mapping over lists, merging what comes back."""

from __future__ import annotations

import asyncio
import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .declarations import Declaration, is_link, unwrapped
from .dynamic_graph import DynamicGraph

Inputs = dict[str, list[Any]]


class ExecutionBlocker:
    """A value that keeps every node it reaches from running; with a message it is reported."""

    def __init__(self, message: str | None = None) -> None:
        self.message = message


def is_blocker(value: Any) -> bool:
    """Packs written for ComfyUI bring their own class of this name."""
    return type(value).__name__ == "ExecutionBlocker" and hasattr(value, "message")


@dataclass(frozen=True)
class Expansion:
    """A call that answered with a graph; `result` may link into it."""

    graph: Mapping[str, Any]
    result: tuple[Any, ...]


@dataclass
class Returned:
    """All calls of one node: per call its results (or expansion), and the merged `ui`."""

    calls: list[tuple[Any, ...] | Expansion]
    ui: dict[str, list[Any]] | None


def gather_inputs(
    graph: DynamicGraph,
    node_id: str,
    declaration: Declaration,
    known: Callable[[str], list[list[Any]] | None],
    extra_data: Mapping[str, Any],
) -> tuple[Inputs, set[str]]:
    """Lists of values by input name, and the names whose value is not known yet (given as None)."""
    inputs: Inputs = {}
    missing: set[str] = set()
    for name, value in graph.get_node(node_id)["inputs"].items():
        spec = declaration.get(name)
        if is_link(value) and not (spec and spec.options.get("rawLink")):
            sockets, slot = known(value[0]), int(value[1])
            if sockets is None or slot >= len(sockets):
                missing.add(name)
                inputs[name] = [None]
            else:
                inputs[name] = sockets[slot]
        elif spec is not None:
            inputs[name] = [unwrapped(value)]
    hidden: dict[str, Callable[[], Any]] = {
        # A copy: some nodes change what they are given, but the graph must stay as it is.
        "PROMPT": lambda: copy.deepcopy(graph.get_original_prompt()),
        "DYNPROMPT": lambda: graph,
        "EXTRA_PNGINFO": lambda: extra_data.get("extra_pnginfo"),
        "UNIQUE_ID": lambda: node_id,
    }
    for name, kind in declaration.hidden.items():
        inputs[name] = [hidden[kind]() if kind in hidden else None]
    return inputs, missing


async def call_mapped(
    function: Callable[..., Any],
    inputs: Inputs,
    as_lists: bool,
    on_block: Callable[[Any], Any],
) -> list[Any]:
    """Calls once per element of the longest input, repeating the last of shorter ones.

    A call that would see a blocker is not made: its answer is `on_block(blocker)`.
    """
    if as_lists:
        calls: list[dict[str, Any]] = [dict(inputs)]
    elif all(inputs.values()):
        length = max(map(len, inputs.values()), default=1)
        calls = [{k: v[min(i, len(v) - 1)] for k, v in inputs.items()} for i in range(length)]
    else:
        calls = []  # an empty list maps to nothing

    answers: list[Any] = []
    for arguments in calls:
        blocker = _find_blocker(arguments, as_lists)
        answers.append(function(**arguments) if blocker is None else on_block(blocker))
    awaited = [i for i, answer in enumerate(answers) if inspect.isawaitable(answer)]
    if awaited:
        done = await asyncio.gather(*(answers[i] for i in awaited))
        for i, answer in zip(awaited, done, strict=True):
            answers[i] = answer
    return answers


def _find_blocker(arguments: dict[str, Any], as_lists: bool) -> Any:
    values = arguments.values()
    if as_lists:
        values = [one for value in values for one in value]
    return next((value for value in values if is_blocker(value)), None)


def read_answers(answers: list[Any], sockets: int) -> Returned:
    """Brings the forms in which a node function may answer into one."""
    calls: list[tuple[Any, ...] | Expansion] = []
    uis: list[Mapping[str, Any]] = []
    for answer in answers:
        result = answer
        if isinstance(answer, Mapping):
            if "ui" in answer:
                uis.append(answer["ui"])
            result = answer.get("result")
        if is_blocker(result):
            result = (result,) * sockets
        result = tuple(result) if result is not None else ()
        if isinstance(answer, Mapping) and "expand" in answer:
            calls.append(Expansion(answer["expand"], result))
        else:
            calls.append(result)
    ui = {key: [one for ui in uis for one in ui.get(key) or ()] for key in uis[0]} if uis else None
    return Returned(calls, ui)


def socket_values(call: tuple[Any, ...], output_is_list: tuple[bool, ...]) -> list[list[Any]]:
    """One call's results as a list of values for each socket."""
    flags = (*output_is_list, *[False] * len(call))
    return [
        list(one) if is_list and not is_blocker(one) else [one]
        for one, is_list in zip(call, flags, strict=False)
    ]


def merge_calls(calls: list[list[list[Any]]], sockets: int) -> list[list[Any]]:
    """Joins the values of all calls, socket by socket."""
    width = max(map(len, calls), default=sockets)
    return [[one for call in calls if i < len(call) for one in call[i]] for i in range(width)]
