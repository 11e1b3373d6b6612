"""Names that arrive over the network, held inside their folder."""

from __future__ import annotations

from pathlib import Path

from .answers import refuse


def inside(folder: Path, *parts: str) -> Path:
    """`folder/parts…`, also through symbolic links inside `folder`. Raises Refusal 403 for what
    leads out (`..`, an absolute path, a drive, a link, a NUL byte); the file need not exist."""
    try:
        root = folder.resolve()
        path = root.joinpath(*(part.replace("\\", "/") for part in parts)).resolve()
    except (OSError, ValueError, RuntimeError):  # too long, a NUL byte, a loop of links
        refuse(403, "This name leads out of its folder.")
    if not path.is_relative_to(root):
        refuse(403, "This name leads out of its folder.")
    return path
