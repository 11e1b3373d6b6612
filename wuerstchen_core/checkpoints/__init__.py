"""Weights on disk <-> networks."""

from .check import check_part
from .folder import Parts, find_parts
from .load import load_image_encoder, load_stage_a, load_stage_b, load_stage_c
from .save import save_network, save_text_encoder, write_pipeline_indexes
from .text import load_text_encoder

__all__ = [
    "Parts",
    "check_part",
    "find_parts",
    "load_image_encoder",
    "load_stage_a",
    "load_stage_b",
    "load_stage_c",
    "load_text_encoder",
    "save_network",
    "save_text_encoder",
    "write_pipeline_indexes",
]
