"""The canvas of real ComfyUI in a real browser: from our templates to the pictures."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from comfyui_wuerstchen.wuerstchen_core.training.demo.checker import Reading, check

from ..browser.canvas import Canvas, in_browser
from ..browser.test_canvas import pixels
from ..examples import FOR_COMFYUI, ON_DEMO
from .conftest import PACK, Install, Process

pytestmark = [pytest.mark.comfyui, pytest.mark.browser, pytest.mark.slow]

# Those that draw this prompt of theirs: with our samplers, and with ComfyUI's own.
STAR = Reading("blue", "star", "red", "large", "top left")
STARS = ("text_to_image", "stock_samplers")


@pytest.fixture
async def canvas(process: Process) -> AsyncIterator[Canvas]:
    """Fails the test on any request to another host, and on errors from our own scripts."""
    async with in_browser(process.url) as canvas:
        yield canvas
    assert canvas.outside == []
    # What this ComfyUI lacks of its own (such as its templates) it complains of too.
    ours = [one for one in canvas.complaints if "exception" in one or PACK in one]
    assert ours == []


async def open_template(canvas: Canvas, name: str) -> None:
    await canvas.page.goto(f"{canvas.url}/?template={name}&source={PACK}")
    await canvas.until("window.app?.extensionManager?.spinner === false")
    await canvas.until("app.graph?.nodes.some(n => n.type.startsWith('Wuerstchen'))")


@pytest.mark.parametrize("name", [path.stem for path in (*ON_DEMO, *FOR_COMFYUI)])
async def test_from_the_template_to_the_picture(
    canvas: Canvas, install: Install, name: str
) -> None:
    await open_template(canvas, name)
    unknown = "app.graph.nodes.map(n => n.type).filter(t => !LiteGraph.registered_node_types[t])"
    assert await canvas.js(unknown) == []
    await canvas.run()
    picture = await canvas.picture()
    await canvas.screenshot(f"{install.checkout.name}-{name}")
    shown = pixels(picture)
    assert min(shown.shape[2:]) >= 256
    if name in STARS:
        assert check(shown) == [STAR]
