"""Every node this host knows: the project's own and the stock ones."""

from __future__ import annotations

from dataclasses import dataclass, field

from .declarations import NodeRegistry


@dataclass(frozen=True)
class Nodes:
    classes: NodeRegistry
    display_names: dict[str, str] = field(default_factory=dict)

    def display_name(self, class_type: str) -> str:
        return self.display_names.get(class_type, class_type)


def default_nodes() -> Nodes:
    """The project's nodes and the stock nodes; ours win on equal names."""
    from ..nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS
    from .stock import STOCK_DISPLAY_NAMES, STOCK_NODES

    return Nodes(
        {**STOCK_NODES, **NODE_CLASS_MAPPINGS},
        {**STOCK_DISPLAY_NAMES, **NODE_DISPLAY_NAME_MAPPINGS},
    )
