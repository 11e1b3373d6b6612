"""Small pictures, and putting them where a server finds them."""

import io
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from .conftest import Running


def png(color: Any, mode: str = "RGB", size: tuple[int, int] = (8, 6), **about: str) -> bytes:
    texts = PngImagePlugin.PngInfo()
    for key, text in about.items():
        texts.add_text(key, text)
    buffer = io.BytesIO()
    Image.new(mode, size, color).save(buffer, format="PNG", pnginfo=texts)
    return buffer.getvalue()


def read(body: bytes) -> Image.Image:
    return Image.open(io.BytesIO(body))


def put(running: Running, kind: str, name: str, content: bytes = b"") -> Path:
    path = getattr(running.host.folders, kind) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
