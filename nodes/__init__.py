"""The nodes. Ids, inputs and outputs are a contract: they never change once landed, only grow."""

from . import image, latent, loaders, samplers, text

_FAMILIES = (loaders, text, latent, samplers, image)

NODE_CLASS_MAPPINGS = {
    node_id: node for family in _FAMILIES for node_id, (node, _) in family.NODES.items()
}
NODE_DISPLAY_NAME_MAPPINGS = {
    node_id: name for family in _FAMILIES for node_id, (_, name) in family.NODES.items()
}
