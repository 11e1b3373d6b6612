"""Showing, previewing and uploading files, with ComfyUI's answers."""

import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientResponse, FormData
from PIL import Image, PngImagePlugin

from comfyui_wuerstchen.host.server.user_files import filename

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


@asynccontextmanager
async def view(running: Running, filename: str | None, **query: str) -> AsyncIterator[Any]:
    if filename is not None:
        query["filename"] = filename
    async with running.session.get(f"{running.url}/api/view", params=query) as answer:
        await answer.read()
        yield answer


async def body(answer: ClientResponse) -> bytes:
    return await answer.read()


async def upload(
    running: Running, name: str, content: bytes, path: str = "/upload/image", **fields: str
) -> tuple[int, Any]:
    form = FormData(quote_fields=False)  # as browsers write names
    form.add_field("image", content, filename=name, content_type="image/png")
    for key, value in fields.items():
        form.add_field(key, value)
    return await running.ask("POST", path, data=form)


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
            assert (answer.status, await body(answer)) == (200, expected), (name, query)
            assert answer.headers["Content-Type"] == "image/png"
            assert answer.headers["Content-Disposition"].startswith("inline; filename=")


async def test_pictures_of_the_examples_are_inputs(running: Running) -> None:
    async with view(running, "example.png", type="input") as answer:
        assert answer.status == 200 and read(await body(answer)).size == (256, 256)
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
        picture = read(await body(answer))
        assert (answer.status, picture.format, picture.mode) == (200, kind, mode)
        assert answer.headers["Content-Type"] == f"image/{kind.lower()}"
        assert picture.size == (8, 6)


async def test_quality_makes_a_preview_small(running: Running) -> None:
    put(running, "input", "noise.png", _noise())
    sizes = []
    for quality in ("5", "90"):
        async with view(running, "noise.png", type="input", preview=f"jpeg;{quality}") as answer:
            sizes.append(len(await body(answer)))
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
            picture = read(await body(answer))
            assert (picture.format, picture.getpixel((0, 0))) == ("PNG", pixel), (name, channel)


async def test_a_preview_is_upright(running: Running) -> None:
    """A browser turns a phone's picture itself, and so does Load Image."""
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6)).save(buffer, format="JPEG", exif=exif)
    put(running, "output", "phone.jpg", buffer.getvalue())
    async with view(running, "phone.jpg", preview="webp;90") as answer:
        assert read(await body(answer)).size == (6, 8)


async def test_a_preview_of_what_is_no_picture(running: Running) -> None:
    put(running, "output", "a.latent", b"none")
    for query in ({"preview": "webp"}, {"channel": "rgb"}, {"channel": "a"}):
        async with view(running, "a.latent", **query) as answer:
            assert answer.status == 400


def test_names_in_headers() -> None:
    assert filename("a b.png") == 'filename="a b.png"'
    assert filename('a"b\\.png') == "filename=\"a_b_.png\"; filename*=UTF-8''a%22b%5C.png"
    assert filename("ü\n.png") == "filename=\"__.png\"; filename*=UTF-8''%C3%BC%0A.png"


async def test_an_upload_is_an_input(running: Running) -> None:
    content = png("red", prompt="{}")
    status, answer = await upload(running, "my picture.png", content)
    assert status == 200
    assert answer == {"name": "my picture.png", "subfolder": "", "type": "input"}
    assert (running.host.folders.input / "my picture.png").read_bytes() == content
    info = await running.get("/object_info/LoadImage")
    assert "my picture.png" in info["LoadImage"]["input"]["required"]["image"][0]


async def test_uploads_of_one_name(running: Running) -> None:
    red, blue, green = png("red"), png("blue"), png("green")

    async def name(content: bytes, **fields: str) -> str:
        return (await upload(running, "a.png", content, **fields))[1]["name"]

    assert await name(red) == "a.png"
    assert await name(red) == "a.png"
    assert await name(blue) == "a (1).png"
    assert await name(blue) == "a (1).png"
    assert await name(green) == "a (2).png"
    assert await name(green, overwrite="true") == "a.png"
    assert await name(red, overwrite="1") == "a.png"
    assert await name(green, overwrite="false") == "a (2).png"
    folder = running.host.folders.input
    assert (folder / "a.png").read_bytes() == red
    kept = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    assert kept == ["a (1).png", "a (2).png", "a.png"]


async def test_an_upload_elsewhere(running: Running) -> None:
    status, answer = await upload(
        running, "a.png", png("red"), subfolder="pasted/today/", type="temp"
    )
    assert status == 200
    assert answer == {"name": "a.png", "subfolder": "pasted/today", "type": "temp"}
    assert (running.host.folders.temp / "pasted" / "today" / "a.png").is_file()


@pytest.mark.parametrize(
    ("name", "fields", "status"),
    [
        ("a.png", {"type": "models"}, 400),
        ("", {}, 400),
        (".hidden.png", {}, 400),
        ("a.png", {"subfolder": ".git"}, 400),
        ("a.png", {"subfolder": "taken"}, 400),
        (f"{'x' * 300}.png", {}, 403),
    ],
)
async def test_uploads_that_are_refused(running, name: str, fields: Any, status: int) -> None:
    put(running, "input", "taken", b"a file, not a folder")
    before = sorted(running.host.folders.input.parent.rglob("*"))
    got, answer = await upload(running, name, png("red"), **fields)
    assert (got, list(answer)) == (status, ["error"])
    after = {path.name for path in running.host.folders.input.parent.rglob("*")}
    assert after - {path.name for path in before} <= {".wuerstchen.lock"}


@pytest.mark.parametrize("sent", [{"json": {}}, {"data": {"image": "text"}}, {}])
async def test_what_is_no_form(running: Running, sent: Any) -> None:
    assert (await running.ask("POST", "/upload/image", **sent))[0] == 400


async def test_a_mask_becomes_the_transparency(running: Running) -> None:
    put(running, "input", "day/photo.png", png((10, 20, 30), prompt='{"1": {}}', note="kept"))
    mask = png((0, 0, 0, 99), "RGBA")
    reference = {"filename": "photo.png", "subfolder": "day", "type": "input"}
    status, answer = await upload(
        running,
        "clipspace-mask-1.png",
        mask,
        path="/upload/mask",
        original_ref=json.dumps(reference),
        subfolder="clipspace",
        type="input",
    )
    assert status == 200
    assert answer == {"name": "clipspace-mask-1.png", "subfolder": "clipspace", "type": "input"}
    made = Image.open(running.host.folders.input / "clipspace" / "clipspace-mask-1.png")
    assert isinstance(made, PngImagePlugin.PngImageFile)
    assert made.getpixel((0, 0)) == (10, 20, 30, 99)
    assert made.text == {"prompt": '{"1": {}}', "note": "kept"}


@pytest.mark.parametrize(
    ("reference", "mask", "status"),
    [
        ('{"filename": "none.png"}', png((0, 0, 0, 9), "RGBA"), 404),
        ('{"filename": "../a.png"}', png((0, 0, 0, 9), "RGBA"), 400),
        ('{"filename": "photo.png", "subfolder": "../../x"}', png((0, 0, 0, 9), "RGBA"), 403),
        ('{"filename": ["photo.png"]}', png((0, 0, 0, 9), "RGBA"), 400),
        ("[]", png((0, 0, 0, 9), "RGBA"), 400),
        ("", png((0, 0, 0, 9), "RGBA"), 400),
        ('{"filename": "photo.png"}', png((0, 0, 0, 9), "RGBA", (3, 3)), 400),
        ('{"filename": "photo.png"}', b"no picture", 400),
    ],
)
async def test_masks_that_are_refused(running, reference: str, mask: bytes, status: int) -> None:
    put(running, "output", "photo.png", png("red"))
    got, answer = await upload(running, "m.png", mask, path="/upload/mask", original_ref=reference)
    assert (got, list(answer)) == (status, ["error"])
    assert not (running.host.folders.input / "m.png").exists()


async def test_a_masked_picture_is_a_png(running: Running) -> None:
    put(running, "output", "photo.png", png("red"))
    got, _ = await upload(
        running,
        "m.jpg",
        png((0, 0, 0, 9), "RGBA"),
        path="/upload/mask",
        original_ref='{"filename": "photo.png"}',
    )
    assert got == 400
