"""The nodes. Ids, inputs and outputs are a contract: they never change once landed, only grow."""

from typing import Any

from . import image, latent, loaders, optimize, runtime, samplers, text

_FAMILIES: tuple[Any, ...] = (loaders, optimize, text, latent, samplers, image)
if runtime.inside_comfyui():
    from . import native

    _FAMILIES = (*_FAMILIES, native)

NODE_CLASS_MAPPINGS = {
    node_id: node for family in _FAMILIES for node_id, (node, _) in family.NODES.items()
}
NODE_DISPLAY_NAME_MAPPINGS = {
    node_id: name for family in _FAMILIES for node_id, (_, name) in family.NODES.items()
}
