"""Showing and previewing files, with ComfyUI's answers."""

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from PIL import Image

from comfyui_wuerstchen.host.server.user_files import filename

from .conftest import Running
from .pictures import png, put, read


@asynccontextmanager
async def view(running: Running, filename: str | None, **query: str) -> AsyncIterator[Any]:
    if filename is not None:
        query["filename"] = filename
    async with running.session.get(f"{running.url}/api/view", params=query) as answer:
        await answer.read()
        yield answer


async def test_a_file_is_found_by_type_subfolder_and_annotation(running: Running) -> None:
    red, blue = png("red"), png("blue")
    put(running, "output", "a.png", red)
    put(running, "output", "day/a.png", blue)
    put(running, "temp", "b.png", red)
    put(running, "input", "in/c.png", blue)
    for name, query, expected in [
        ("a.png", {}, red),
        ("a.png", {"type": "output", "subfolder": ""}, red),
        ("a.png", {"subfolder": "day"}, blue),
        ("elsewhere/a.png", {"subfolder": "day"}, blue),
        ("b.png", {"type": "temp"}, red),
        ("b.png [temp]", {}, red),
        ("c.png [input]", {"subfolder": "in", "type": "output"}, blue),
    ]:
        async with view(running, name, **query) as answer:
            assert (answer.status, await answer.read()) == (200, expected), (name, query)
            assert answer.headers["Content-Type"] == "image/png"
            assert answer.headers["Content-Disposition"].startswith("inline; filename=")


async def test_pictures_of_the_examples_are_inputs(running: Running) -> None:
    async with view(running, "example.png", type="input") as answer:
        assert answer.status == 200 and read(await answer.read()).size == (256, 256)
    async with view(running, "example.png") as answer:
        assert answer.status == 404


@pytest.mark.parametrize(
    ("name", "query", "status"),
    [
        (None, {}, 404),
        ("", {}, 400),
        ("[output]", {}, 400),
        ("a.png", {"type": "models"}, 400),
        ("/a.png", {}, 400),
        ("../a.png", {}, 400),
        ("a.png", {"subfolder": "../input"}, 403),
        ("a.png", {"subfolder": "/"}, 403),
        ("none.png", {}, 404),
        ("day", {}, 404),
        (".wuerstchen.lock", {"subfolder": "day"}, 404),
    ],
)
async def test_what_cannot_be_shown(running, name: str | None, query: Any, status: int) -> None:
    put(running, "output", "day/a.png", png("red"))
    put(running, "output", "day/.wuerstchen.lock")
    async with view(running, name, **query) as answer:
        assert answer.status == status
        assert list(await answer.json()) == ["error"]


async def test_a_part_of_a_file(running: Running) -> None:
    put(running, "output", "film.mp4", bytes(range(100)))
    async with running.session.get(
        f"{running.url}/view?filename=film.mp4", headers={"Range": "bytes=10-19"}
    ) as answer:
        assert (answer.status, await answer.read()) == (206, bytes(range(10, 20)))
        assert answer.headers["Content-Type"] == "video/mp4"


@pytest.mark.parametrize(
    ("asked", "channel", "kind", "mode"),
    [
        ("webp;90", None, "WEBP", "RGBA"),
        ("webp", "rgb", "WEBP", "RGB"),
        ("jpeg;50", None, "JPEG", "RGB"),
        ("jpeg;50", "rgba", "WEBP", "RGBA"),
        ("tiff;9999", None, "WEBP", "RGBA"),
        ("", None, "WEBP", "RGBA"),
    ],
)
async def test_previews(running, asked: str, channel: str | None, kind: str, mode: str) -> None:
    put(running, "output", "a.png", png((255, 0, 0, 0), "RGBA"))
    query = {"preview": asked, **({"channel": channel} if channel else {})}
    async with view(running, "a.png", **query) as answer:
        picture = read(await answer.read())
        assert (answer.status, picture.format, picture.mode) == (200, kind, mode)
        assert answer.headers["Content-Type"] == f"image/{kind.lower()}"
        assert picture.size == (8, 6)


async def test_quality_makes_a_preview_small(running: Running) -> None:
    put(running, "input", "noise.png", _noise())
    sizes = []
    for quality in ("5", "90"):
        async with view(running, "noise.png", type="input", preview=f"jpeg;{quality}") as answer:
            sizes.append(len(await answer.read()))
    assert sizes[0] * 3 < sizes[1]


def _noise() -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((128, 128), 80).save(buffer, format="PNG")
    return buffer.getvalue()


async def test_channels(running: Running) -> None:
    put(running, "output", "a.png", png((200, 100, 50, 7), "RGBA"))
    put(running, "output", "plain.png", png((200, 100, 50)))
    for name, channel, pixel in [
        ("a.png", "rgb", (200, 100, 50)),
        ("a.png", "a", (0, 0, 0, 7)),
        ("a.png", "rgba", (200, 100, 50, 7)),
        ("plain.png", "a", (0, 0, 0, 255)),
        ("plain.png", "rgb", (200, 100, 50)),
    ]:
        async with view(running, name, channel=channel) as answer:
            picture = read(await answer.read())
            assert (picture.format, picture.getpixel((0, 0))) == ("PNG", pixel), (name, channel)


async def test_a_preview_is_upright(running: Running) -> None:
    """A browser turns a phone's picture itself, and so does Load Image."""
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6)).save(buffer, format="JPEG", exif=exif)
    put(running, "output", "phone.jpg", buffer.getvalue())
    async with view(running, "phone.jpg", preview="webp;90") as answer:
        assert read(await answer.read()).size == (6, 8)


async def test_a_preview_of_what_is_no_picture(running: Running) -> None:
    put(running, "output", "a.latent", b"none")
    for query in ({"preview": "webp"}, {"channel": "rgb"}, {"channel": "a"}):
        async with view(running, "a.latent", **query) as answer:
            assert answer.status == 400


def test_names_in_headers() -> None:
    assert filename("a b.png") == 'filename="a b.png"'
    assert filename('a"b\\.png') == "filename=\"a_b_.png\"; filename*=UTF-8''a%22b%5C.png"
    assert filename("ü\n.png") == "filename=\"__.png\"; filename*=UTF-8''%C3%BC%0A.png"
