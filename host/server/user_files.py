"""Files that people and graphs made, sent so that a browser never runs what is in them."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote

from aiohttp import web

from .static_files import content_type

# What a browser shows without running anything; all other types are only for saving.
SHOWN = re.compile(r"(image/(?!svg)[\w.+-]+|(audio|video|model)/[\w.+-]+|text/plain)")
ANY_TYPE = "application/octet-stream"
# Also for the type of a file that is not what its name says.
NO_SCRIPTS = (
    "default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'; sandbox"
)


def send_user_file(path: Path, inline: bool = True) -> web.FileResponse:
    """`path`, to be shown if that is harmless and `inline` is on, else to be saved."""
    kind = content_type(path)
    shown = SHOWN.fullmatch(kind) is not None
    disposition = "inline" if inline and shown else "attachment"
    return web.FileResponse(
        path,
        headers={
            "Content-Type": kind if shown else ANY_TYPE,
            "Content-Disposition": f"{disposition}; {filename(path.name)}",
            "Content-Security-Policy": NO_SCRIPTS,
        },
    )


def filename(name: str) -> str:
    """The `filename` of a Content-Disposition header; RFC 6266 for names beyond plain ASCII."""
    plain = re.sub(r'[^ -~]|["\\]', "_", name)
    more = "" if plain == name else f"; filename*=UTF-8''{quote(name, safe='')}"
    return f'filename="{plain}"{more}'
