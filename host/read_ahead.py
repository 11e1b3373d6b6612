"""Reads the weights that a later node will need in the background, while a node works."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from threading import Event
from typing import Any

import torch

from .cache import NodeOutput
from .dynamic_graph import DynamicGraph
from .graph_nodes import GraphNodes
from .node_call import Inputs
from .schedule import Schedule, eager_links
from .validate_values import types_fit

logger = logging.getLogger(__name__)


class ReadAhead:
    """One thread for one run, started when there is something to read.

    A value on a wire that can be read ahead of its use has the attribute `read_ahead`: what reads
    it, None once it is read. It is read at most one node ahead, so that it does not take memory
    long before its time. What cannot be read is told by the node that uses it.
    """

    def __init__(
        self, graph: DynamicGraph, nodes: GraphNodes, schedule: Schedule, cancel: Event
    ) -> None:
        self._graph = graph
        self._nodes = nodes
        self._schedule = schedule
        self._cancel = cancel
        self._unread: list[Any] = []
        self._begun: set[int] = set()
        self._thread: ThreadPoolExecutor | None = None

    def note(self, output: NodeOutput) -> None:
        """From here on these values are known."""
        self._unread += [one for values in output.values for one in values if _reader(one)]

    def start(self, inputs: Inputs, given: Mapping[str, NodeOutput]) -> None:
        """Begins to read what the next node needs that is not among the `inputs` of the node that
        is about to work; `given` are the outputs of the nodes before."""
        self._unread = [one for one in self._unread if _reader(one)]
        if not self._unread:
            return
        own = {id(one) for values in inputs.values() for one in values}
        for node_id in self._schedule.upcoming():
            used = [one for one in self._used_by(node_id, given) if id(one) not in own]
            for one in used:
                self._begin(one)
            if used:
                return
        self._unread.clear()  # nobody waits for them

    def close(self) -> None:
        """Waits for what is being read."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)

    def _used_by(self, node_id: str, given: Mapping[str, NodeOutput]) -> Iterator[Any]:
        """What the node itself will use; what it passes on is for another node to use."""
        gives = getattr(self._nodes.class_of(node_id), "RETURN_TYPES", ())
        for spec, origin, slot in eager_links(self._graph, self._nodes, node_id):
            if spec is None or origin not in given:
                continue
            sockets = given[origin].values
            if slot < len(sockets) and not any(types_fit(kind, spec.type) for kind in gives):
                yield from (one for one in sockets[slot] if hasattr(type(one), "read_ahead"))

    def _begin(self, value: Any) -> None:
        reader = _reader(value)
        if reader is None or id(value) in self._begun:
            return
        self._begun.add(id(value))
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="wuerstchen-read-ahead")
        self._thread.submit(copy_context().run, self._read, reader)

    def _read(self, reader: Callable[[], Any]) -> None:
        if self._cancel.is_set():
            return
        try:
            with torch.inference_mode():  # as in the node, and for each thread anew
                reader()
        except Exception as error:
            logger.debug("not read ahead: %s", error)


def _reader(value: Any) -> Callable[[], Any] | None:
    # Asked of the class: objects of other packs may answer to any name.
    return value.read_ahead if hasattr(type(value), "read_ahead") else None
