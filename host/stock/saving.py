"""Saving under numbered names: never outside the folder, never half a file, never over another."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ...wuerstchen_core.errors import WuerstchenError
from ...wuerstchen_core.files import write_atomically
from ...wuerstchen_core.folder_lock import folder_lock
from ..declarations import node_title

TOKEN = re.compile(r"%([^%]+)%")
DATE_PART = re.compile(r"dd?|MM?|hh?|mm?|ss?|yyyy|yy")
UNSAFE = re.compile(r'[/?<>\\:*|"\x00-\x1f\x7f]')


class SaveError(WuerstchenError):
    """A result cannot be saved where it should go."""


@dataclass(frozen=True)
class Saved:
    filename: str
    subfolder: str

    def as_ui(self, kind: str) -> dict[str, str]:
        return {"filename": self.filename, "subfolder": self.subfolder, "type": kind}


def save_numbered(root: Path, prefix: str, suffix: str, write: Callable[[Path], None]) -> Saved:
    """Writes `root/prefix_00001_.suffix` with the next free number; `write` fills a given path."""
    subfolder, name = _split_prefix(prefix)
    try:
        folder = (root / subfolder).resolve()
        if not folder.is_relative_to(root.resolve()):
            raise SaveError(
                f"filename_prefix '{prefix}' leads out of its folder; use a plain name."
            )
        folder.mkdir(parents=True, exist_ok=True)
        with folder_lock(folder):
            filename = f"{name}_{_next_number(folder, name):05}_{suffix}"
            with write_atomically(folder / filename) as partial:
                write(partial)
    except OSError as error:
        raise SaveError(f"Cannot save '{prefix}': {error.strerror or error}.") from error
    return Saved(filename, subfolder)


def _split_prefix(prefix: str) -> tuple[str, str]:
    path = PurePosixPath(prefix.replace("\\", "/"))
    parts = path.parts
    if not parts or path.is_absolute() or ":" in parts[0] or "\0" in prefix:
        raise SaveError(
            f"filename_prefix '{prefix}' must be a name like 'picture' or 'day/picture'."
        )
    if any(part.startswith(".") for part in parts):
        raise SaveError(f"filename_prefix '{prefix}' must not have parts that start with a dot.")
    return "/".join(parts[:-1]), parts[-1]


def _next_number(folder: Path, name: str) -> int:
    numbered = re.compile(re.escape(name) + r"_(\d+)")
    found = (numbered.match(path.name) for path in folder.iterdir())
    return max((int(match[1]) for match in found if match), default=0) + 1


def fill_tokens(prefix: str, width: int, height: int, prompt: dict[str, Any] | None) -> str:
    """Replaces `%width%`, `%date:yyyy-MM-dd%`, `%Node title.input%` …; keeps unknown ones."""
    now = time.localtime()
    plain = {
        "width": str(width),
        "height": str(height),
        "year": f"{now.tm_year}",
        "month": f"{now.tm_mon:02}",
        "day": f"{now.tm_mday:02}",
        "hour": f"{now.tm_hour:02}",
        "minute": f"{now.tm_min:02}",
        "second": f"{now.tm_sec:02}",
    }

    def fill(match: re.Match[str]) -> str:
        token = match[1]
        if token in plain:
            return plain[token]
        if token.startswith("date:"):
            return UNSAFE.sub("_", _format_date(token.removeprefix("date:"), now))
        value = _node_value(prompt or {}, token)
        return match[0] if value is None else UNSAFE.sub("_", str(value))

    return TOKEN.sub(fill, prefix)


def _format_date(pattern: str, now: time.struct_time) -> str:
    numbers = {
        "d": now.tm_mday,
        "M": now.tm_mon,
        "h": now.tm_hour,
        "m": now.tm_min,
        "s": now.tm_sec,
    }

    def part(match: re.Match[str]) -> str:
        text = match[0]
        if text[0] == "y":
            return str(now.tm_year)[-len(text) :]
        return str(numbers[text[0]]).zfill(len(text))

    return DATE_PART.sub(part, pattern)


def _node_value(prompt: dict[str, Any], token: str) -> Any:
    title, _, name = token.rpartition(".")
    for node_id in prompt:
        if title and node_title(prompt, node_id) == title:
            return prompt[node_id]["inputs"].get(name)
    return None
