"""ComfyUI's own nodes that people need around ours, under its ids, inputs and behaviour.

One family a file, each with its table `NODES`: id -> (class, display name).
"""

from __future__ import annotations

from . import (
    compositing,
    conditioning,
    conditioning_regions,
    image_tools,
    images,
    latent_batches,
    latent_math,
    latent_regions,
    latents,
    mask_tools,
    masks,
    preview_any,
    primitives,
)

_FAMILIES = (
    images,
    image_tools,
    compositing,
    masks,
    mask_tools,
    latents,
    latent_batches,
    latent_math,
    latent_regions,
    conditioning,
    conditioning_regions,
    primitives,
    preview_any,
)

STOCK_NODES: dict[str, type] = {
    node_id: node for family in _FAMILIES for node_id, (node, _) in family.NODES.items()
}
STOCK_DISPLAY_NAMES: dict[str, str] = {
    node_id: name for family in _FAMILIES for node_id, (_, name) in family.NODES.items()
}
