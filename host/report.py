"""How a run went: the result for the caller and the messages for those who listen."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from ..nodes.runtime import OUT_OF_MEMORY, is_out_of_memory
from ..wuerstchen_core.errors import WuerstchenError
from .dynamic_graph import DynamicGraph
from .messages import Messages, OnEvent
from .node_call import Inputs
from .plain import plain

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class NodeFailure:
    """Which node failed and why. It holds no exception, because that would keep frames alive."""

    node_id: str
    class_type: str
    message: str
    error_class: type[BaseException]


@dataclass
class RunResult:
    """`outputs` and `meta` are what ComfyUI's history holds, by node id, as plain JSON."""

    status: Literal["success", "error", "cancelled"]
    prompt_id: str
    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    meta: dict[str, dict[str, Any]] = field(default_factory=dict)
    executed: list[str] = field(default_factory=list)
    failure: NodeFailure | None = None


class Report:
    def __init__(self, prompt_id: str, graph: DynamicGraph, on_event: OnEvent) -> None:
        self._graph = graph
        self.messages = Messages(prompt_id, graph, on_event)
        self.result = RunResult("success", prompt_id)

    def ui(self, node_id: str, ui: dict[str, Any] | None) -> None:
        if ui:
            self.result.outputs[node_id] = plain(ui)
            self.result.meta[node_id] = plain(self.messages.meta(node_id))
            self.messages.executed(node_id, self.result.outputs[node_id])

    def blocked(self, node_id: str, message: str) -> None:
        """A blocker with a message: an error to those who listen, but the run goes on."""
        self._send_error(node_id, f"Execution Blocked: {message}", "ExecutionBlocked", {}, [])

    def failed(
        self, node_id: str, error: BaseException, inputs: Inputs, known_nodes: list[str]
    ) -> None:
        """Ends the run on the node of the prompt that a person can see."""
        real_id = self._graph.get_real_node_id(node_id)
        class_type = self._graph.get_node(real_id)["class_type"]
        message = str(error) or type(error).__name__
        if isinstance(error, WuerstchenError):
            logger.info("node %s (%s): %s", real_id, class_type, error)
        elif is_out_of_memory(error):
            logger.error("node %s (%s): %s", real_id, class_type, error)
            message = OUT_OF_MEMORY
        else:
            logger.error("node %s (%s) failed", real_id, class_type, exc_info=error)
        self.result.status = "error"
        self.result.failure = NodeFailure(real_id, class_type, message, type(error))
        self._send_error(real_id, f"{message}\n", _full_name(type(error)), inputs, known_nodes)

    def cancelled(self, node_id: str) -> None:
        real_id = self._graph.get_real_node_id(node_id)
        self.result.status = "cancelled"
        self.messages.send_timed(
            "execution_interrupted",
            node_id=real_id,
            node_type=self._graph.get_node(real_id)["class_type"],
            executed=list(self.result.executed),
        )

    def _send_error(
        self, node_id: str, message: str, kind: str, inputs: Inputs, known_nodes: list[str]
    ) -> None:
        self.messages.send_timed(
            "execution_error",
            node_id=node_id,
            node_type=self._graph.get_node(node_id)["class_type"],
            executed=list(self.result.executed),
            exception_message=message,
            exception_type=kind,
            traceback=[],  # a traceback would tell paths of this machine
            current_inputs={name: [_described(v) for v in vs] for name, vs in inputs.items()},
            current_outputs=known_nodes,
        )


def _full_name(error_class: type) -> str:
    if error_class.__module__ == "builtins":
        return error_class.__qualname__
    return f"{error_class.__module__}.{error_class.__qualname__}"


def _described(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, torch.Tensor):
        return f"{type(value).__name__} {'×'.join(map(str, value.shape))} {value.dtype}"
    return type(value).__name__
