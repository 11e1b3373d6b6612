"""The inputs of a graph that a person can set, and finding the one that he means."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..wuerstchen_core.errors import WuerstchenError
from .declarations import Declaration, InputSpec, Prompt, is_link, node_title, unwrapped
from .graph_file import GraphFile
from .registry import Nodes

TRUE_WORDS, FALSE_WORDS = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
MAX_LISTED_CHOICES = 12


class SetError(WuerstchenError):
    """A `--set` that names no input, or gives it a value that it cannot have."""


@dataclass(frozen=True)
class GraphInput:
    """One widget of one node of the graph."""

    node_id: str
    title: str
    class_type: str
    spec: InputSpec
    value: Any
    takes_file: bool

    @property
    def name(self) -> str:
        return f"{self.title}.{self.spec.name}"

    @property
    def allowed(self) -> str:
        """What values it can have, for people."""
        if self.takes_file:
            return "a file"
        choices = self.spec.choices
        if choices is not None:
            shown = ", ".join(map(str, choices[:MAX_LISTED_CHOICES]))
            more = len(choices) - MAX_LISTED_CHOICES
            return f"{shown}, … ({more} more)" if more > 0 else shown
        if self.spec.kind == "BOOLEAN":
            return "true or false"
        if self.spec.kind not in ("INT", "FLOAT"):
            return "any text"
        low, high = self.spec.options.get("min"), self.spec.options.get("max")
        kind = "a whole number" if self.spec.kind == "INT" else "a number"
        if low is None and high is None:
            return kind
        return f"{kind}, {'…' if low is None else low} to {'…' if high is None else high}"


def list_inputs(prompt: Prompt, nodes: Nodes) -> list[GraphInput]:
    """Every widget that no link feeds, in the graph's order. Unknown classes have none."""
    found = []
    for node_id, node in prompt.items():
        node_class = nodes.classes.get(node["class_type"])
        if node_class is None:
            continue
        files = getattr(node_class, "FILE_INPUTS", frozenset())
        for spec in Declaration(node_class).widgets:
            value = node["inputs"].get(spec.name, spec.default)
            if not is_link(value):
                found.append(
                    GraphInput(
                        node_id,
                        node_title(prompt, node_id),
                        node["class_type"],
                        spec,
                        unwrapped(value),
                        spec.name in files,
                    )
                )
    return found


def apply_settings(graph: GraphFile, nodes: Nodes, settings: Sequence[str]) -> dict[str, Path]:
    """Applies `KEY=VALUE` settings; returns the files that they name, by the name in the graph.

    Raises SetError with every problem on its own line; the graph is then half changed.
    """
    inputs = list_inputs(graph.prompt, nodes)
    files: dict[str, Path] = {}
    problems: list[str] = []
    for setting in settings:
        key, separator, text = setting.partition("=")
        try:
            if not separator:
                raise SetError(f"--set '{setting}' has no '='; write it as KEY=VALUE.")
            found = find_input(inputs, key.strip(), graph.prompt)
            if found.takes_file and (path := _named_file(text, found)) is not None:
                value: Any = _input_name(path)
                files[value] = path
            else:
                value = parse_value(found, text)
            graph.set(found.node_id, found.spec.name, value)
        except SetError as error:
            problems.append(str(error))
    if problems:
        raise SetError("\n".join(problems))
    return files


def find_input(inputs: Sequence[GraphInput], key: str, prompt: Prompt) -> GraphInput:
    """The input that `key` means: `node.input`, a unique input name, or a node with one widget.

    A node is named by its title, id or class. Raises SetError that lists the candidates.
    """
    node_key, dot, name = key.rpartition(".")
    if dot:
        matches = [one for one in inputs if one.spec.name == name and _is_node(one, node_key)]
        if matches:
            return _only(matches, key)
        _explain_link(prompt, node_key, name)
    named = [one for one in inputs if one.spec.name == key]
    if len(named) == 1:
        return named[0]
    titled = [one for one in inputs if _is_node(one, key)]
    texts = [one for one in titled if one.spec.kind == "STRING"]
    for matches in (titled, texts):
        if len(matches) == 1:
            return matches[0]
    if named or titled:
        return _only(named or titled, key)
    known = ", ".join(f"'{one.name}'" for one in inputs) or "nothing"
    raise SetError(f"The graph has no input '{key}'; it has {known}.")


def _is_node(one: GraphInput, key: str) -> bool:
    names = (one.title, one.node_id, one.class_type)
    return key in names or key.casefold() in [name.casefold() for name in names]


def _only(matches: Sequence[GraphInput], key: str) -> GraphInput:
    if len(matches) == 1:
        return matches[0]
    listed = ", ".join(f"'{one.node_id}.{one.spec.name}' ({one.name})" for one in matches)
    raise SetError(f"'{key}' can mean several inputs; say which: {listed}.")


def _explain_link(prompt: Prompt, node_key: str, name: str) -> None:
    for node_id, node in prompt.items():
        title = node_title(prompt, node_id)
        if node_key not in (title, node_id, node["class_type"]):
            continue
        link = node["inputs"].get(name)
        if is_link(link) and link[0] in prompt:
            origin = node_title(prompt, link[0])
            raise SetError(
                f"'{title}.{name}' is fed by node '{origin}' ({link[0]}); set that one instead."
            )


def _named_file(text: str, found: GraphInput) -> Path | None:
    """The file that the user means, unless it is one of the input folder's own names."""
    if text in (found.spec.choices or ()):
        return None
    path = Path(text).expanduser()
    if not path.is_file():
        raise SetError(f"{found.name}: there is no file '{text}'; give the path of one.")
    return path.resolve()


def _input_name(path: Path) -> str:
    """What the file will be called in the input folder: its name and a mark of its content, so
    that the graph finds the same picture again, and tells nothing of where it came from."""
    return f"{path.stem}-{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}{path.suffix}"


def parse_value(found: GraphInput, text: str) -> Any:
    """`text` as the declared type and within its bounds. Raises SetError."""
    value = _parsed(found, text)
    low, high = found.spec.options.get("min"), found.spec.options.get("max")
    is_number = found.spec.kind in ("INT", "FLOAT")
    if is_number and ((low is not None and value < low) or (high is not None and value > high)):
        raise _unfit(found, text)
    return value


def _parsed(found: GraphInput, text: str) -> Any:
    kind, choices = found.spec.kind, found.spec.choices
    if choices is not None:
        for choice in choices:
            if text == str(choice):
                return choice
        raise _unfit(found, text)
    try:
        if kind == "INT":
            return int(text)
        if kind == "FLOAT":
            number = float(text)
            if math.isfinite(number):
                return number
            raise _unfit(found, text)
    except ValueError:
        raise _unfit(found, text) from None
    if kind == "BOOLEAN":
        word = text.strip().lower()
        if word not in TRUE_WORDS + FALSE_WORDS:
            raise _unfit(found, text)
        return word in TRUE_WORDS
    return text


def _unfit(found: GraphInput, text: str) -> SetError:
    return SetError(f"{found.name} (node {found.node_id}): got '{text}'; expected {found.allowed}.")
