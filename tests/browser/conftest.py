"""A real server with the demo checkpoint, and Chromium in front of it."""

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import async_playwright

from comfyui_wuerstchen.host.server.assemble import ServeSettings

from ..server.conftest import Running, serving
from .canvas import Canvas

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Running]:
    async with serving(ServeSettings("127.0.0.1", 0, tmp_path / "data")) as running:
        yield running


@pytest.fixture
async def canvas(server: Running) -> AsyncIterator[Canvas]:
    """Fails the test on any request to another host and any error in the browser's console."""
    browser_path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), "")
    if not browser_path:
        pytest.skip("needs Chromium: install it, or name it in CHROMIUM")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=browser_path, args=FLAGS)
        page = await browser.new_page(viewport={"width": 1600, "height": 1000})
        canvas = Canvas(page, server.url)
        canvas.watch()
        yield canvas
        await browser.close()
    assert canvas.outside == []
    assert canvas.complaints == []
