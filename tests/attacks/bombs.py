"""Small files and requests that claim to be huge."""

import gzip
import io
import struct
import zlib
from collections.abc import Iterator

from PIL import Image


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _zeros(size: int) -> bytes:
    """`size` zero bytes in zlib's format."""
    packer = zlib.compressobj(9)
    block = bytes(1 << 20)
    parts = [packer.compress(block[: min(len(block), size - at)]) for at in range(0, size, 1 << 20)]
    return b"".join([*parts, packer.flush()])


def png(width: int, height: int, pixels: int | None = None) -> bytes:
    """Grey; with `pixels` the file ends after so many of them."""
    rows = height if pixels is None else pixels // width
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", header),
            _chunk(b"IDAT", _zeros((width + 1) * rows)),
            _chunk(b"IEND", b""),
        )
    )


def png_with_text(size: int) -> bytes:
    """A small picture with a compressed text of `size` bytes."""
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, format="PNG")
    picture = buffer.getvalue()
    text = _chunk(b"zTXt", b"prompt\0\0" + _zeros(size))
    return picture[:33] + text + picture[33:]


def gif(frames: int, side: int) -> bytes:
    """Empty frames, of which each is a whole picture once it is decoded."""
    first = Image.new("L", (side, side))
    buffer = io.BytesIO()
    first.save(
        buffer,
        format="GIF",
        save_all=True,
        append_images=[Image.new("L", (side, side), i % 2 + 1) for i in range(frames - 1)],
    )
    return buffer.getvalue()


def packed_json(size: int) -> bytes:
    return gzip.compress(b'{"prompt": "' + b" " * size + b'"}')


def nested(depth: int) -> Iterator[bytes]:
    """JSON that is nested so deep, in several ways."""
    yield b"[" * depth + b"]" * depth
    yield b"[" * depth
    yield b'{"prompt":' * depth + b"1" + b"}" * depth
    yield b'{"prompt": {"1": {"class_type": "PreviewAny", "inputs": {"source": ' + (
        b"[" * depth + b"]" * depth + b"}}}}"
    )
