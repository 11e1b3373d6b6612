"""The canvas's own mask editor, from a brush stroke to the MASK of Load Image."""

import torch

from comfyui_wuerstchen.host.folders import HostSurroundings
from comfyui_wuerstchen.host.stock.images import LoadImage
from comfyui_wuerstchen.nodes.runtime import use

from ..server.conftest import Running
from .canvas import Canvas

# The pixels of the picture being masked, once they are drawn.
DRAWN = (
    "(c => c?.width === 256 && c.getContext('2d').getImageData(128, 64, 1, 1).data[3] === 255)"
    "(document.querySelector('[role=dialog] canvas'))"
)


async def test_what_is_painted_is_the_mask(canvas: Canvas, server: Running) -> None:
    await canvas.open("image_variation")
    await canvas.until(f"{canvas.node('LoadImage')}.imgs?.[0]?.naturalWidth > 0")
    await canvas.js(f"app.canvas.selectNode({canvas.node('LoadImage')})")
    await canvas.page.get_by_label("Open Mask Editor for Selected Node").click()
    dialog = canvas.page.get_by_role("dialog")
    await canvas.until(DRAWN)
    box = await dialog.locator("canvas").first.bounding_box()
    assert box is not None
    quarter = box["width"] / 4
    left, top = box["x"] + quarter, box["y"] + quarter
    await canvas.drag((left, top), (left + 2 * quarter, top))
    await canvas.screenshot("mask-editor")
    await dialog.locator("button", has_text="Save").click()
    name = canvas.widget("LoadImage", "image") + ".value"
    await canvas.until(f"{name} !== 'example.png'")

    with use(HostSurroundings(server.host.folders)):
        before, _ = LoadImage().load_image("example.png")
        picture, mask = LoadImage().load_image(await canvas.js(name))
    assert mask.shape == (1, 256, 256)
    assert mask[0, 64, 64:192].min() == 1 and mask[0, 100:].max() == 0
    assert torch.allclose(picture, before, atol=0.02)
