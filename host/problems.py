"""Validation errors in words for people: which node, which input, what came, what is allowed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .declarations import InputSpec, node_title
from .graph_inputs import GraphInput
from .validate import Validation


def describe_problems(prompt: dict[str, Any], validation: Validation) -> Iterator[str]:
    """One line for each problem; none when the prompt is fine."""
    if validation.missing:
        for error in validation.missing:
            info = error["extra_info"]
            name = info["class_type"] or "without a class_type"
            yield (
                f"Node {info['node_id']} '{info['node_title'] or ''}' is of the unknown kind "
                f"{name}; install what provides it, or remove or mute the node."
            )
        return
    for node_id, found in validation.node_errors.items():
        for error in found["errors"]:
            title = node_title(prompt, node_id)
            yield f"Node {node_id} '{title}': {_words(prompt, error)}"
    if validation.error is not None and not validation.node_errors:
        kind = validation.error["type"]
        if kind == "prompt_no_outputs":
            yield "The graph saves and shows nothing; add a node like Save Image."
        else:
            yield f"{validation.error['message']}."


def _words(prompt: dict[str, Any], error: dict[str, Any]) -> str:
    info = error["extra_info"]
    name, got = info.get("input_name"), info.get("received_value")
    kind = error["type"]
    if kind == "required_input_missing":
        return f"input '{name}' is missing; link it or give it a value."
    if kind in ("value_smaller_than_min", "value_bigger_than_max", "invalid_input_type"):
        return f"input '{name}' got {got!r}; expected {_allowed(name, info['input_config'])}."
    if kind == "value_not_in_list":
        config = info["input_config"]
        offered = _allowed(name, config) if config else "one of its choices"
        return f"input '{name}' got {got!r}; expected {offered or 'a choice, but there is none'}."
    if kind == "return_type_mismatch":
        origin, slot = info["linked_node"]
        return (
            f"input '{name}' got {info['received_type']} from node {origin} "
            f"'{node_title(prompt, origin)}' (output {slot}); expected {info['input_config'][0]}."
        )
    if kind == "bad_linked_input":
        return f"input '{name}' got {got!r}; expected a link [node id, output number]."
    if kind == "dependency_cycle":
        return f"its links run in a circle ({error['details']}); cut one of them."
    if kind == "custom_validation_failed":
        reason = error["details"].removeprefix(f"{name}").removeprefix(" - ")
        return f"input '{name}': {reason or 'the node does not accept this value.'}"
    if name is not None and isinstance(got, list):
        return f"input '{name}' is linked to {got!r}, which is not in the graph; link it again."
    return f"{info.get('exception_type', 'error')}: {error['details']}"


def _allowed(name: str, config: list[Any]) -> str:
    spec = InputSpec(name, config[0], config[1], required=True)
    return GraphInput("", "", "", spec, None, takes_file=False).allowed
