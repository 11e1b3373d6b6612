"""Bridges to ComfyUI's own MODEL, VAE, CLIP, SIGMAS and SAMPLER. Imported only inside ComfyUI."""

from . import bridges, reference

NODES = {**bridges.NODES, **reference.NODES}
