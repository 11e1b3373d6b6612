"""One prompt on its way: pulling nodes from the schedule, calling them, keeping what they gave."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from typing import Any

from ..nodes.runtime import is_out_of_memory, use
from ..wuerstchen_core.errors import Cancelled
from .cache import NodeOutput, OutputCache
from .declarations import NodeRegistry, Prompt, is_link
from .dynamic_graph import DynamicGraph
from .folders import HostSurroundings
from .graph_nodes import GraphNodes
from .instances import Instances
from .messages import OnEvent
from .node_call import (
    Expansion,
    Inputs,
    Returned,
    call_mapped,
    gather_inputs,
    merge_calls,
    read_answers,
    socket_values,
)
from .read_ahead import ReadAhead
from .report import Report, RunResult
from .schedule import Schedule
from .signatures import Signatures

BACKGROUND_POLL_S = 0.1


class _Failed(Exception):
    """Ends the run; the failure is already reported."""


class Run:
    def __init__(
        self,
        *,
        prompt: Prompt,
        registry: NodeRegistry,
        surroundings: HostSurroundings,
        cache: OutputCache,
        instances: Instances,
        prompt_id: str,
        extra_data: Mapping[str, Any],
        on_event: OnEvent,
    ) -> None:
        """surroundings: of the nodes; their progress goes to `on_event`."""
        self._around = surroundings
        self._cancel = surroundings.cancel
        self._cache = cache
        self._extra_data = extra_data
        self._graph = DynamicGraph(prompt)
        self._nodes = GraphNodes(self._graph, registry, instances)
        self._report = Report(prompt_id, self._graph, on_event)
        self._signatures = Signatures(self._graph, self._nodes)
        self._schedule = Schedule(self._graph, self._nodes, self._has_output)
        self._read_ahead = ReadAhead(self._graph, self._nodes, self._schedule, self._cancel)
        self._given: dict[str, NodeOutput] = {}
        self._expanded: dict[str, Returned] = {}

    def execute(self, outputs: Sequence[str]) -> RunResult:
        self._report.messages.send_timed("execution_start")
        with use(self._around), closing(self._read_ahead):
            try:
                asyncio.run(self._run_all(outputs))
                self._report.messages.send_timed("execution_success")
            except _Failed:
                pass
        return self._report.result

    async def _run_all(self, outputs: Sequence[str]) -> None:
        tasks: set[asyncio.Task[None]] = set()
        try:
            await self._stage(outputs)
            while self._schedule:
                self._stop_if_cancelled(outputs[0])
                for task in [task for task in tasks if task.done()]:
                    tasks.discard(task)
                    task.result()
                node_id = self._schedule.take()
                if node_id is None:
                    await asyncio.wait(
                        tasks, timeout=BACKGROUND_POLL_S, return_when=asyncio.FIRST_COMPLETED
                    )
                elif self._nodes.is_async(node_id):
                    tasks.add(asyncio.create_task(self._run_node(node_id)))
                else:
                    await self._run_node(node_id)
                    if tasks:
                        await asyncio.sleep(0)  # let background nodes go on
        except _Failed:
            raise
        except Exception as error:
            # A cycle among expanded nodes, or a node class whose declaration is broken.
            self._fail(outputs[0], error, {})
            raise _Failed from None
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _stage(self, outputs: Sequence[str]) -> None:
        for node_id in outputs:
            await self._signatures.prepare(node_id)
        cached = [
            node_id
            for node_id in self._graph.get_original_prompt()
            if self._signatures.is_signed(node_id) and self._signatures.of(node_id) in self._cache
        ]
        self._report.messages.send_timed("execution_cached", nodes=cached)
        for node_id in cached:
            node_class = self._nodes.class_of(node_id)
            shows_always = getattr(node_class, "HAS_INTERMEDIATE_OUTPUT", False)
            if shows_always and node_id not in outputs and self._has_output(node_id):
                self._report.ui(node_id, self._given[node_id].ui)
        for node_id in outputs:
            self._schedule.add(node_id)

    async def _run_node(self, node_id: str) -> None:
        inputs: Inputs = {}
        try:
            if self._has_output(node_id):
                self._finish_cached(node_id)
                return
            expanded = self._expanded.pop(node_id, None)
            if expanded is None:
                self._report.messages.started(node_id)
                declaration = self._nodes.declaration(node_id)
                inputs, missing = gather_inputs(
                    self._graph, node_id, declaration, self._values_of, self._extra_data
                )
                with self._surroundings(node_id):
                    if await self._asks_for_more(node_id, inputs, missing):
                        return
                    if not self._nodes.is_async(node_id):
                        self._read_ahead.start(inputs, self._given)
                    expanded, blocked = await self._call(node_id, inputs)
                self._report.ui(node_id, expanded.ui)
                if any(isinstance(call, Expansion) for call in expanded.calls):
                    await self._expand(node_id, expanded)
                    return
            else:
                blocked = False
            self._keep(node_id, expanded, cacheable=not blocked)
        except (Cancelled, KeyboardInterrupt):
            self._report.cancelled(node_id)
            raise _Failed from None
        except (Exception, SystemExit) as error:
            if type(error).__name__ == "InterruptProcessingException":
                self._report.cancelled(node_id)
            else:
                self._fail(node_id, error, inputs)
            raise _Failed from None
        finally:
            self._schedule.release(node_id)

    async def _asks_for_more(self, node_id: str, inputs: Inputs, missing: set[str]) -> bool:
        """Lets a node with lazy inputs say which of the missing ones it wants."""
        instance = self._nodes.instance(node_id)
        ask = getattr(instance, "check_lazy_status", None)
        named = self._nodes.declaration(node_id).named
        if ask is None or not any(spec.options.get("lazy") for spec in named.values()):
            return False
        as_lists = bool(getattr(instance, "INPUT_IS_LIST", False))
        answers = await call_mapped(ask, inputs, as_lists, lambda blocker: None)
        wanted = {name for answer in answers for name in answer or () if name in missing}
        linked = self._graph.get_node(node_id)["inputs"]
        origins = [linked[name][0] for name in linked if name in wanted and is_link(linked[name])]
        self._schedule.require(node_id, origins)
        return bool(origins)

    async def _call(self, node_id: str, inputs: Inputs) -> tuple[Returned, bool]:
        """Calls the node; the flag says that a blocker kept at least one call from being made."""
        instance = self._nodes.instance(node_id)
        function = getattr(instance, instance.FUNCTION)
        blocked = False

        def call(**arguments: Any) -> Any:
            if self._cancel.is_set():
                raise Cancelled
            return function(**arguments)

        def block(blocker: Any) -> Any:
            nonlocal blocked
            blocked = True
            if blocker.message is None:
                return blocker
            self._report.blocked(node_id, blocker.message)
            return type(blocker)(None)

        as_lists = bool(getattr(instance, "INPUT_IS_LIST", False))
        answers = await call_mapped(call, inputs, as_lists, block)
        return read_answers(answers, len(getattr(instance, "RETURN_TYPES", ()))), blocked

    async def _expand(self, node_id: str, returned: Returned) -> None:
        """Adds the nodes a call answered with; the node waits for those and then runs on."""
        self._expanded[node_id] = returned
        wanted: list[str] = []
        for call in returned.calls:
            if not isinstance(call, Expansion):
                continue
            for new_id, node in call.graph.items():
                if not self._nodes.knows(node["class_type"]):
                    raise ValueError(f"the node expands into the unknown {node['class_type']}")
                shown = node.get("override_display_id", node_id)
                self._graph.add_ephemeral_node(new_id, node, node_id, shown)
                if self._nodes.is_output(new_id):
                    wanted.append(new_id)
            wanted += [value[0] for value in call.result if is_link(value)]
        for new_id in wanted:
            await self._signatures.prepare(new_id)
        self._schedule.require(node_id, wanted)

    def _keep(self, node_id: str, returned: Returned, cacheable: bool) -> None:
        node_class = self._nodes.class_of(node_id)
        sockets = len(getattr(node_class, "RETURN_TYPES", ()))
        is_list = tuple(getattr(node_class, "OUTPUT_IS_LIST", ()))
        calls = [
            self._resolved(call, is_list)
            if isinstance(call, Expansion)
            else socket_values(call, is_list)
            for call in returned.calls
        ]
        output = NodeOutput(merge_calls(calls, sockets), returned.ui)
        self._give(node_id, output)
        if cacheable:
            self._cache.put(self._signatures.of(node_id), output)
        self._report.result.executed.append(node_id)
        self._report.messages.finished(node_id)
        self._schedule.finish(node_id)

    def _resolved(self, expansion: Expansion, is_list: tuple[bool, ...]) -> list[list[Any]]:
        """The result of an expansion with its links replaced by what those nodes gave."""
        constant = socket_values(expansion.result, is_list)
        return [
            self._given[value[0]].values[int(value[1])] if is_link(value) else constant[i]
            for i, value in enumerate(expansion.result)
        ]

    def _finish_cached(self, node_id: str) -> None:
        self._report.ui(node_id, self._given[node_id].ui)
        self._report.messages.finished(node_id)
        self._schedule.finish(node_id)

    def _fail(self, node_id: str, error: BaseException, inputs: Inputs) -> None:
        if is_out_of_memory(error):
            self._cache.clear()
        self._report.failed(node_id, error, inputs, list(self._given))

    def _stop_if_cancelled(self, node_id: str) -> None:
        if self._cancel.is_set():
            self._report.cancelled(node_id)
            raise _Failed

    def _surroundings(self, node_id: str) -> AbstractContextManager[None]:
        def step(value: int, total: int, preview: Any) -> None:
            self._report.messages.stepped(node_id, float(value), float(total), preview)

        return use(replace(self._around, on_progress=step))

    def _has_output(self, node_id: str) -> bool:
        """Whether the node's outputs are at hand; what the cache knows is pinned for this run."""
        if node_id not in self._given:
            known = self._cache.get(self._signatures.of(node_id))
            if known is None:
                return False
            self._give(node_id, known)
        return True

    def _give(self, node_id: str, output: NodeOutput) -> None:
        self._given[node_id] = output
        self._read_ahead.note(output)

    def _values_of(self, node_id: str) -> list[list[Any]] | None:
        return self._given[node_id].values if node_id in self._given else None
