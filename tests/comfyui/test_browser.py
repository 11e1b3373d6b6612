"""The canvas of real ComfyUI in a real browser: from our templates to the pictures."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import async_playwright

from comfyui_wuerstchen.wuerstchen_core.training.demo.checker import Reading, check

from ..browser.canvas import Canvas
from ..browser.conftest import BROWSERS, FLAGS
from ..browser.test_canvas import pixels
from ..examples import EXAMPLES
from .conftest import PACK, Install, Process

pytestmark = [pytest.mark.comfyui, pytest.mark.browser, pytest.mark.slow]

# Those that draw this prompt of theirs: with our samplers, and with ComfyUI's own.
STAR = Reading("blue", "star", "red", "large", "top left")
STARS = ("text_to_image", "stock_samplers")


@pytest.fixture
async def canvas(process: Process) -> AsyncIterator[Canvas]:
    """Fails the test on any request to another host, and on errors from our own scripts."""
    browser_path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), "")
    if not browser_path:
        pytest.skip("needs Chromium: install it, or name it in CHROMIUM")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=browser_path, args=FLAGS)
        page = await browser.new_page(viewport={"width": 1600, "height": 1000})
        canvas = Canvas(page, process.url)
        canvas.watch()
        yield canvas
        await browser.close()
    assert canvas.outside == []
    # What this ComfyUI lacks of its own (such as its templates) it complains of too.
    ours = [one for one in canvas.complaints if "exception" in one or PACK in one]
    assert ours == []


async def open_template(canvas: Canvas, name: str) -> None:
    await canvas.page.goto(f"{canvas.url}/?template={name}&source={PACK}")
    await canvas.until("window.app?.extensionManager?.spinner === false")
    await canvas.until("app.graph?.nodes.some(n => n.type.startsWith('Wuerstchen'))")


@pytest.mark.parametrize("name", [path.stem for path in EXAMPLES])
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
    assert shown.shape == (1, 3, 256, 256)
    if name in STARS:
        assert check(shown) == [STAR]
