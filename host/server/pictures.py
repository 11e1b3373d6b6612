"""Pictures that arrive over the network or are sent changed, within limits of memory."""

from __future__ import annotations

import io
from contextlib import suppress
from pathlib import Path
from typing import IO

from PIL import Image, ImageOps

from ..graph_file import UNREADABLE_PICTURE
from ..stock.images import FORMATS
from .answers import refuse

# 256 MB as RGBA: a few kilobytes of PNG can claim any size.
MAX_PIXELS = 1 << 26
DEFAULT_QUALITY = 90


def read_picture(source: Path | IO[bytes]) -> Image.Image:
    """The picture (its first frame) in memory, upright. Raises Refusal: 413 for one of more than
    MAX_PIXELS, 400 for what is not a whole picture."""
    try:
        with Image.open(source, formats=FORMATS) as file:
            pixels = file.width * file.height
            if pixels > MAX_PIXELS:
                refuse(413, f"The picture has {pixels} pixels; at most {MAX_PIXELS} are handled.")
            return ImageOps.exif_transpose(file)
    except Image.DecompressionBombError:
        refuse(413, f"The picture is too large; at most {MAX_PIXELS} pixels are handled.")
    except UNREADABLE_PICTURE:
        refuse(400, "This is not a whole picture; use a PNG, JPEG or WebP file.")


def preview(path: Path, asked: str, channel: str) -> tuple[bytes, str]:
    """The picture made smaller in bytes, and its content type. `asked` is `webp` or `jpeg` with a
    quality, like `webp;90`; only WebP keeps a transparency. Raises Refusal."""
    picture = read_picture(path)
    kind, *rest = asked.split(";")
    if kind not in ("webp", "jpeg") or "a" in channel:
        kind = "webp"
    quality = DEFAULT_QUALITY
    with suppress(ValueError, IndexError):
        quality = min(max(int(rest[-1][:4]), 1), 100)
    opaque = kind == "jpeg" or channel == "rgb" or not picture.has_transparency_data
    return _encode(picture.convert("RGB" if opaque else "RGBA"), kind, quality=quality)


def without_alpha(path: Path) -> tuple[bytes, str]:
    return _encode(read_picture(path).convert("RGB"), "png")


def only_alpha(path: Path) -> tuple[bytes, str]:
    """Black under the picture's transparency, as the mask editor reads it."""
    picture = read_picture(path)
    alpha = picture.convert("RGBA").getchannel("A")
    black = Image.new("RGBA", picture.size)
    black.putalpha(alpha)
    return _encode(black, "png")


def _encode(picture: Image.Image, kind: str, **options: int) -> tuple[bytes, str]:
    buffer = io.BytesIO()
    try:
        picture.save(buffer, format=kind, **options)
    except (OSError, ValueError):  # WebP ends at 16383 pixels a side, JPEG at 65535
        refuse(400, f"The picture is too large for {kind}; ask for it without a preview.")
    return buffer.getvalue(), f"image/{kind}"
