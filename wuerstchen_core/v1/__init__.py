"""Würstchen v1, the original repository's first model, for pictures of 512 px.

Its Stage B (`paella.py`) draws Stage A's tokens instead of latents, and has a sampler of its own.
Its Stage C is v2's with CLIP-H's texts, in the image encoder's own space; its image encoder is the
larger EfficientNetV2-L. Stage A is the same.
"""
