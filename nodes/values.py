"""Values that arrive by a wire: nobody has looked at their kind or range before."""

import math
from typing import Any

from ..wuerstchen_core.errors import SettingError


def whole(name: str, value: Any, least: int, most: int) -> int:
    """A whole number from `least` to `most`. Raises SettingError."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value // 1:
        raise _wrong(name, value, "a whole number")
    if not least <= value <= most:
        raise SettingError(f"`{name}` is {value:g}; {least} to {most} is expected.")
    return int(value)


def number(name: str, value: Any) -> float:
    """Raises SettingError."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise _wrong(name, value, "a number")
    return value


def text(name: str, value: Any) -> str:
    """Raises SettingError."""
    if not isinstance(value, str):
        raise _wrong(name, value, "a text")
    return value


def _wrong(name: str, value: Any, expected: str) -> SettingError:
    return SettingError(
        f"`{name}` got {value!r:.60} and takes {expected}; wire another output, or set the kind in "
        "Würstchen XY Values."
    )
