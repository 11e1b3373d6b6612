"""Uploading pictures and masks, with ComfyUI's answers."""

import json
from typing import Any

import pytest
import torch
from aiohttp import FormData
from PIL import Image, PngImagePlugin

from comfyui_wuerstchen.host.folders import HostSurroundings
from comfyui_wuerstchen.host.stock.images import LoadImage
from comfyui_wuerstchen.nodes.runtime import use

from .conftest import Running
from .pictures import png, put


async def upload(
    running: Running, name: str, content: bytes, path: str = "/upload/image", **fields: str
) -> tuple[int, Any]:
    form = FormData(quote_fields=False)  # as browsers write names
    form.add_field("image", content, filename=name, content_type="image/png")
    for key, value in fields.items():
        form.add_field(key, value)
    return await running.ask("POST", path, data=form)


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
    with use(HostSurroundings(running.host.folders)):  # as the canvas then names it
        picture, marked = LoadImage().load_image("clipspace/clipspace-mask-1.png [input]")
    assert (picture[0, 0, 0] * 255).round().tolist() == [10, 20, 30]
    assert marked.shape == picture.shape[:3] and marked[0, 0, 0] == 1 - torch.tensor(99) / 255


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
