"""The nodes. Ids, inputs and outputs are a contract: they never change once landed, only grow."""

from typing import Any

from . import (
    grid,
    guidance,
    image,
    latent,
    loaders,
    lora,
    merge,
    mixing,
    optimize,
    runtime,
    samplers,
    text,
    v1,
    v1_samplers,
)

_FAMILIES: tuple[Any, ...] = (
    loaders,
    lora,
    merge,
    optimize,
    guidance,
    text,
    latent,
    grid,
    mixing,
    samplers,
    image,
    v1,
    v1_samplers,
)
if runtime.inside_comfyui():
    from . import native

    _FAMILIES = (*_FAMILIES, native)

NODE_CLASS_MAPPINGS = {
    node_id: node for family in _FAMILIES for node_id, (node, _) in family.NODES.items()
}
NODE_DISPLAY_NAME_MAPPINGS = {
    node_id: name for family in _FAMILIES for node_id, (_, name) in family.NODES.items()
}
