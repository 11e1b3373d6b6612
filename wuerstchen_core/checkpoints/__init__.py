"""Weights on disk <-> networks."""

from .check import check_part
from .folder import Parts, find_parts
from .folder_v1 import PartsV1, find_parts_v1
from .load import (
    load_image_encoder,
    load_image_encoder_v1,
    load_stage_a,
    load_stage_b,
    load_stage_b_v1,
    load_stage_c,
    load_stage_c_v1,
)
from .save import save_network, save_text_encoder, write_pipeline_indexes
from .text import load_text_encoder

__all__ = [
    "Parts",
    "PartsV1",
    "check_part",
    "find_parts",
    "find_parts_v1",
    "load_image_encoder",
    "load_image_encoder_v1",
    "load_stage_a",
    "load_stage_b",
    "load_stage_b_v1",
    "load_stage_c",
    "load_stage_c_v1",
    "load_text_encoder",
    "save_network",
    "save_text_encoder",
    "write_pipeline_indexes",
]
