"""Is this prompt runnable? Answers with the error objects that ComfyUI's clients know."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from .declarations import Declaration, InputSpec, NodeRegistry, Prompt, is_finite, is_link
from .validate_graph import find_cycles, links_of, upstream
from .validate_values import check_value, types_fit

Error = dict[str, Any]


@dataclass
class Validation:
    """`outputs` can run. `error` is set when nothing can. `node_errors` is keyed by node id.

    `missing` holds one prompt-level error for each node whose class is unknown; ComfyUI's answer
    has room only for the first of them.
    """

    outputs: list[str] = field(default_factory=list)
    error: Error | None = None
    node_errors: dict[str, Error] = field(default_factory=dict)
    missing: list[Error] = field(default_factory=list)


def validate(
    prompt: Any, registry: NodeRegistry, targets: Collection[str] | None = None
) -> Validation:
    """Checks `prompt` and coerces its values in place; `targets` narrows the outputs to run.

    Call it inside `nodes.runtime.use(...)`: the choices of a combo may come from a folder.
    Never raises for anything that JSON can hold.
    """
    if not isinstance(prompt, dict) or not prompt:
        return Validation(error=_prompt_error("no_prompt", "No prompt provided", same=True))
    missing = [error for node_id in prompt if (error := _missing_type(prompt, node_id, registry))]
    if missing:
        return Validation(error=missing[0], missing=missing)
    outputs = [
        node_id
        for node_id, node in prompt.items()
        if getattr(registry[node["class_type"]], "OUTPUT_NODE", False) is True
        and (targets is None or node_id in targets)
    ]
    if not outputs:
        return Validation(error=_prompt_error("prompt_no_outputs", "Prompt has no outputs"))
    return _validate_outputs(prompt, registry, outputs)


def _validate_outputs(prompt: Prompt, registry: NodeRegistry, outputs: list[str]) -> Validation:
    links = links_of(prompt)
    reach = {output: upstream(links, output) for output in outputs}
    reachable = set().union(*reach.values())
    checker = _NodeChecker(prompt, registry)
    errors = {node_id: checker.check(node_id) for node_id in prompt if node_id in reachable}
    for node_id, error in find_cycles(prompt, links, outputs):
        errors[node_id].insert(0, error)

    result = Validation()
    for node_id, found in errors.items():
        if found:
            result.node_errors[node_id] = {
                "errors": found,
                "dependent_outputs": [o for o in outputs if node_id in reach[o]],
                "class_type": prompt[node_id]["class_type"],
            }
    result.outputs = [o for o in outputs if not reach[o] & result.node_errors.keys()]
    if not result.outputs:
        # ComfyUI sums up only what is wrong with the output nodes themselves.
        own = [f"{e['message']}: {e['details']}" for o in outputs for e in errors[o]]
        result.error = _prompt_error(
            "prompt_outputs_failed_validation", "Prompt outputs failed validation", "\n".join(own)
        )
    return result


def _prompt_error(kind: str, message: str, details: str = "", same: bool = False) -> Error:
    details = message if same else details
    return {"type": kind, "message": message, "details": details, "extra_info": {}}


def _missing_type(prompt: dict[str, Any], node_id: str, registry: NodeRegistry) -> Error | None:
    node = prompt[node_id] if isinstance(prompt[node_id], dict) else {}
    class_type = node.get("class_type")
    meta = node.get("_meta")
    title = meta.get("title") if isinstance(meta, dict) else None
    if not isinstance(class_type, str):
        message = (
            f"Node '{title or f'ID #{node_id}'}' has no class_type. "
            "The workflow may be corrupted or a custom node is missing."
        )
        class_type = None
    elif class_type not in registry:
        title = title or class_type
        message = f"Node '{title}' not found. The custom node may not be installed."
    else:
        return None
    return {
        "type": "missing_node_type",
        "message": message,
        "details": f"Node ID '#{node_id}'",
        "extra_info": {"node_id": node_id, "class_type": class_type, "node_title": title},
    }


class _NodeChecker:
    """Checks single nodes; reads each class's declaration once."""

    def __init__(self, prompt: Prompt, registry: NodeRegistry) -> None:
        self._prompt = prompt
        self._registry = registry
        self._declarations: dict[str, Declaration] = {}

    def check(self, node_id: str) -> list[Error]:
        node = self._prompt[node_id]
        class_type = node["class_type"]
        if not isinstance(node.setdefault("inputs", {}), dict):
            return [_exception("inputs is not an object", TypeError)]
        try:
            if class_type not in self._declarations:
                self._declarations[class_type] = Declaration(self._registry[class_type])
            return self._check(node_id, self._declarations[class_type])
        except Exception as error:
            # A node class of someone else may raise anything; the server must still answer.
            return [_exception(str(error), type(error))]

    def _check(self, node_id: str, declaration: Declaration) -> list[Error]:
        inputs = self._prompt[node_id]["inputs"]
        node_class = self._registry[self._prompt[node_id]["class_type"]]
        custom = _CustomCheck(node_class)
        errors: list[Error] = []
        received_types: dict[str, Any] = {}
        for spec in declaration.named.values():
            if spec.name not in inputs:
                if spec.required:
                    errors.append(
                        _error(
                            "required_input_missing",
                            "Required input is missing",
                            spec.name,
                            spec.name,
                        )
                    )
            elif isinstance(inputs[spec.name], list):
                errors += self._check_link(spec, inputs[spec.name], custom, received_types)
            else:
                error = check_value(inputs, spec, ranges=not custom.takes(spec.name))
                errors += [error] if error else []
        for name, value in inputs.items():
            is_known = name in declaration.named
            if not is_known and is_link(value) and value[0] not in self._prompt:
                errors.append(_unknown_link(name, value))
        return errors + custom.check(node_id, inputs, declaration, received_types, bool(errors))

    def _check_link(
        self, spec: InputSpec, link: list[Any], custom: _CustomCheck, received: dict[str, Any]
    ) -> Iterator[Error]:
        if not is_link(link):
            yield _error(
                "bad_linked_input",
                "Bad linked input, must be a length-2 list of [node_id, slot_index]",
                spec.name,
                spec.name,
                input_config=spec.config,
                received_value=link,
            )
            return
        origin_id, slot = link
        if origin_id not in self._prompt:
            yield _unknown_link(spec.name, link)
            return
        offered = getattr(self._registry[self._prompt[origin_id]["class_type"]], "RETURN_TYPES", ())
        if not is_finite(slot) or int(slot) != slot or not 0 <= slot < len(offered):
            yield _exception("tuple index out of range", IndexError, spec.name, link)
            return
        received[spec.name] = offered[int(slot)]
        if "input_types" not in custom.names and not types_fit(received[spec.name], spec.type):
            yield _error(
                "return_type_mismatch",
                "Return type mismatch between linked nodes",
                f"{spec.name}, received_type({received[spec.name]}) "
                f"mismatch input_type({spec.type})",
                spec.name,
                input_config=spec.config,
                received_type=received[spec.name],
                linked_node=link,
            )


class _CustomCheck:
    """A class's own `VALIDATE_INPUTS`, which takes over the range checks of what it names."""

    def __init__(self, node_class: type) -> None:
        self._function = getattr(node_class, "VALIDATE_INPUTS", None)
        self._takes_any = False
        self._needs: list[str] = []
        self.names: list[str] = []
        if self._function is not None:
            for parameter in inspect.signature(self._function).parameters.values():
                if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                    self._takes_any = True
                    continue
                self.names.append(parameter.name)
                if parameter.default is inspect.Parameter.empty:
                    self._needs.append(parameter.name)

    def takes(self, name: str) -> bool:
        return self._takes_any or name in self.names

    def check(
        self,
        node_id: str,
        inputs: dict[str, Any],
        declaration: Declaration,
        received_types: dict[str, Any],
        has_errors: bool,
    ) -> list[Error]:
        if self._function is None or not (self.names or self._takes_any):
            return []
        # A linked input has no value yet.
        known = {
            name: None if is_link(value) else value
            for name, value in inputs.items()
            if (is_link(value) or declaration.get(name) is not None)
        }
        known |= _hidden_values(declaration, node_id)
        known = {name: value for name, value in known.items() if self.takes(name)}
        given = dict(known)
        if "input_types" in self.names:
            given["input_types"] = received_types
        if has_errors and any(name not in given for name in self._needs):
            return []
        answer = self._function(**given)
        if inspect.isawaitable(answer):
            answer = asyncio.run(_await(answer))
        if answer is True:
            return []
        reason = "" if answer is False else f" - {answer}"
        return [
            _error(
                "custom_validation_failed",
                "Custom validation failed for node",
                f"{name}{reason}",
                name,
            )
            for name in (known or given)
        ]


async def _await(awaitable: Any) -> Any:
    return await awaitable


def _hidden_values(declaration: Declaration, node_id: str) -> dict[str, Any]:
    values = {"PROMPT": {}, "UNIQUE_ID": node_id}
    return {name: values.get(kind) for name, kind in declaration.hidden.items()}


def _error(kind: str, message: str, details: str, input_name: str, **more: Any) -> Error:
    extra = {"input_name": input_name, **more}
    return {"type": kind, "message": message, "details": details, "extra_info": extra}


def _unknown_link(name: str, link: Iterable[Any]) -> Error:
    origin = next(iter(link))
    return _exception(repr(origin), KeyError, name, link)


def _exception(
    details: str, kind: type, input_name: str | None = None, received: Any = None
) -> Error:
    extra: dict[str, Any] = {"exception_type": kind.__name__, "traceback": []}
    if input_name is not None:
        extra |= {"input_name": input_name, "received_value": received}
    return {
        "type": "exception_during_validation",
        "message": "Exception when validating node",
        "details": details,
        "extra_info": extra,
    }
