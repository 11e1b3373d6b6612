"""A real server with the demo checkpoint, and Chromium in front of it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from comfyui_wuerstchen.host.server.assemble import ServeSettings

from ..server.conftest import Running, serving
from .canvas import Canvas, in_browser


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Running]:
    async with serving(ServeSettings("127.0.0.1", 0, tmp_path / "data")) as running:
        yield running


@pytest.fixture
async def canvas(server: Running) -> AsyncIterator[Canvas]:
    """Fails the test on any request to another host and any error in the browser's console."""
    async with in_browser(server.url) as canvas:
        yield canvas
    assert canvas.outside == []
    assert canvas.complaints == []
