"""Values of other people's nodes, as JSON can hold them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

MAX_INT_BITS = 1024  # Python refuses to write very large numbers


def plain(value: Any) -> Any:
    """A copy of nothing but JSON; what JSON does not know becomes text."""
    if isinstance(value, str) or value is None:
        return value
    if isinstance(value, int):
        return hex(value) if value.bit_length() > MAX_INT_BITS else value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(one) for one in value]
    return str(value)
