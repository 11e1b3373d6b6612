"""ComfyUI's own nodes that people need around ours, under its ids, inputs and behaviour.

One family a file, each with its table `NODES`: id -> (class, display name).
"""

from __future__ import annotations

from . import (
    conditioning,
    image_tools,
    images,
    latent_batches,
    latent_math,
    latent_regions,
    latents,
    masks,
    preview_any,
    primitives,
)

_FAMILIES = (
    images,
    image_tools,
    masks,
    latents,
    latent_batches,
    latent_math,
    latent_regions,
    conditioning,
    primitives,
    preview_any,
)

STOCK_NODES: dict[str, type] = {
    node_id: node for family in _FAMILIES for node_id, (node, _) in family.NODES.items()
}
STOCK_DISPLAY_NAMES: dict[str, str] = {
    node_id: name for family in _FAMILIES for node_id, (_, name) in family.NODES.items()
}
