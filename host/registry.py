"""Every node this host knows: the project's own, the stock ones, and those of packs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .declarations import NodeRegistry

# The project as a pack: its name in URLs, and the module that its nodes say they come from.
OWN_PACK = "comfyui-wuerstchen"
OWN_MODULE = f"custom_nodes.{OWN_PACK}"
STOCK_MODULE = "nodes"


@dataclass(frozen=True)
class Nodes:
    """`modules` names the Python module of each class that is not a stock one, as the canvas
    shows it: "custom_nodes.<pack>"."""

    classes: NodeRegistry
    display_names: Mapping[str, str] = field(default_factory=dict)
    modules: Mapping[str, str] = field(default_factory=dict)

    def display_name(self, class_type: str) -> str:
        return self.display_names.get(class_type, class_type)

    def module(self, class_type: str) -> str:
        return self.modules.get(class_type, STOCK_MODULE)

    def with_pack(
        self, module: str, classes: Mapping[str, type], display_names: Mapping[str, str]
    ) -> Nodes:
        """These nodes and those of a pack, whose ids must be new."""
        return Nodes(
            {**self.classes, **classes},
            {**self.display_names, **display_names},
            {**self.modules, **dict.fromkeys(classes, module)},
        )


def default_nodes() -> Nodes:
    """The project's nodes and the stock nodes; ours win on equal names."""
    from ..nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS
    from .stock import STOCK_DISPLAY_NAMES, STOCK_NODES

    return Nodes(
        {**STOCK_NODES, **NODE_CLASS_MAPPINGS},
        {**STOCK_DISPLAY_NAMES, **NODE_DISPLAY_NAME_MAPPINGS},
        dict.fromkeys(NODE_CLASS_MAPPINGS, OWN_MODULE),
    )
