"""What packs bring along besides nodes, read from their folders."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .packs import Pack

logger = logging.getLogger(__name__)

# What a pack translates, by file in `locales/<language>/`; `main.json` lies above them.
TRANSLATED = ("nodeDefs", "commands", "settings")


def script_urls(packs: Iterable[Pack]) -> list[str]:
    """The canvas imports each of these."""
    return [
        f"/extensions/{quote(pack.name)}/{quote(path.relative_to(pack.web).as_posix())}"
        for pack in packs
        if pack.web is not None
        for path in sorted(pack.web.rglob("*.js"))
    ]


def translations(packs: Iterable[Pack]) -> dict[str, Any]:
    """By language, the texts of all packs in one tree; on equal keys the last pack's."""
    merged: dict[str, Any] = {}
    for pack in packs:
        for folder in sorted(pack.locales.iterdir()) if pack.locales else ():
            texts = _json_object(folder / "main.json")
            for part in TRANSLATED:
                if more := _json_object(folder / f"{part}.json"):
                    texts[part] = more
            if texts:
                merged = _merge(merged, {folder.name: texts})
    return merged


def blueprints(packs: Iterable[Pack]) -> dict[str, tuple[dict[str, Any], Path]]:
    """The subgraphs that packs offer as nodes: by id, what to say of one and where it lies."""
    found = {}
    for pack in packs:
        for path in sorted(pack.subgraphs.glob("*.json")) if pack.subgraphs else ():
            key = hashlib.sha256(f"{pack.name}/{path.name}".encode()).hexdigest()
            info = {"node_pack": pack.python_module}
            found[key] = {"source": "custom_node", "name": path.stem, "info": info}, path
    return found


def _json_object(path: Path) -> dict[str, Any]:
    """Empty where there is no such file, or no JSON object in it."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        logger.warning("%s/%s is left out: %s", path.parent.name, path.name, error)
        return {}
    return value if isinstance(value, dict) else {}


def _merge(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    both = {
        key: _merge(one[key], other[key])
        for key in one.keys() & other.keys()
        if isinstance(one[key], dict) and isinstance(other[key], dict)
    }
    return {**one, **other, **both}
