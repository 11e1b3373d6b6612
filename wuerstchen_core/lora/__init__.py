"""LoRAs of every usual kind and spelling: read, matched to a network, applied."""

from .apply import Changed, sum_of, together, with_changes
from .match import (
    NO_CHANGES,
    Changes,
    Match,
    for_another_model,
    is_for_text,
    match,
    nothing_fits,
    rest_of,
    trained_for,
)
from .read import LoraFile, read_lora

__all__ = [
    "NO_CHANGES",
    "Changed",
    "Changes",
    "LoraFile",
    "Match",
    "for_another_model",
    "is_for_text",
    "match",
    "nothing_fits",
    "read_lora",
    "rest_of",
    "sum_of",
    "together",
    "trained_for",
    "with_changes",
]
