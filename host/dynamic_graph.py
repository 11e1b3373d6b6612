"""The running graph: the prompt and the nodes that expansion adds to it."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

from .declarations import Prompt


class DynamicGraph:
    """What a node sees as `DYNPROMPT`; the method names are the ones nodes call.

    An ephemeral node has a parent (the node that expanded into it) and is shown as another node.
    """

    def __init__(self, prompt: Prompt) -> None:
        self._prompt = prompt
        self._ephemeral: Prompt = {}
        self._parents: dict[str, str] = {}
        self._shown_as: dict[str, str] = {}

    def has_node(self, node_id: str) -> bool:
        return node_id in self._prompt or node_id in self._ephemeral

    def get_node(self, node_id: str) -> dict[str, Any]:
        if node_id in self._prompt:
            return self._prompt[node_id]
        return self._ephemeral[node_id]

    def add_ephemeral_node(
        self, node_id: str, node: dict[str, Any], parent_id: str, display_id: str
    ) -> None:
        if self.has_node(node_id):
            raise ValueError(f"node {parent_id} expands into '{node_id}', which exists already")
        self._ephemeral[node_id] = node
        self._parents[node_id] = parent_id
        self._shown_as[node_id] = display_id

    def get_real_node_id(self, node_id: str) -> str:
        """The node of the prompt that this node came from."""
        while node_id in self._parents:
            node_id = self._parents[node_id]
        return node_id

    def get_parent_node_id(self, node_id: str) -> str | None:
        return self._parents.get(node_id)

    def get_display_node_id(self, node_id: str) -> str:
        while node_id in self._shown_as:
            node_id = self._shown_as[node_id]
        return node_id

    def all_node_ids(self) -> Set[str]:
        return self._prompt.keys() | self._ephemeral.keys()

    def get_original_prompt(self) -> Prompt:
        return self._prompt
