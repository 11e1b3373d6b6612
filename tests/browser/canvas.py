"""The canvas in Chromium, as a person at the screen: what is there, and what can be done."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Locator, Page, Request, TimeoutError, async_playwright

from ..paths import ROOT

# Kept by CI, so that a person can look.
SCREENSHOTS = Path(os.environ.get("ARTIFACTS_DIR", ROOT / "artifacts")) / "screenshots"


BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A fresh browser; skips the test where there is none."""
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), "")
    if not path:
        pytest.skip("needs Chromium: install it, or name it in CHROMIUM")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        await browser.close()


@asynccontextmanager
async def in_browser(url: str) -> AsyncIterator[Canvas]:
    """A page before the server at `url`, watched; it is not opened yet."""
    async with chromium() as browser:
        page = await browser.new_page(viewport={"width": 1600, "height": 1000})
        canvas = Canvas(page, url)
        canvas.watch()
        yield canvas


@dataclass
class Canvas:
    """One page of the canvas. `outside` and `complaints` must stay empty."""

    page: Page
    url: str
    outside: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def watch(self) -> None:
        self.page.on("request", self._check_request)
        self.page.on("pageerror", lambda error: self.complaints.append(f"exception: {error}"))
        self.page.on("console", self._check_message)

    def _check_request(self, request: Request) -> None:
        if not request.url.startswith((self.url, "data:", "blob:")):
            self.outside.append(request.url)

    def _check_message(self, message: Any) -> None:
        where = (message.location or {}).get("url", "")
        if message.type == "error":
            self.complaints.append(f"{message.text} ({where})")

    async def open(self, template: str | None = "text_to_image", more: str = "") -> None:
        """Opens the deep link that the command prints, or the bare address with None."""
        query = f"?template={template}&source=comfyui-wuerstchen{more}" if template else ""
        await self.page.goto(f"{self.url}/{query}")
        await self.until("window.app?.extensionManager?.spinner === false")
        await self.test_id("app-loading-overlay").wait_for(state="hidden")
        if template:
            await self.until("app.graph.nodes.some(n => n.type.startsWith('Wuerstchen'))")

    async def js(self, expression: str, argument: Any = None) -> Any:
        return await self.page.evaluate(f"(a) => ({expression})", argument)

    async def until(self, expression: str, timeout_s: float = 60) -> None:
        """Waits until the JavaScript expression is true."""
        # Asked from here: waiting inside the page needs `eval`, which the server forbids.
        deadline = time.monotonic() + timeout_s
        while not await self.js(expression):
            assert time.monotonic() < deadline, f"never became true: {expression}"
            await asyncio.sleep(0.05)

    async def run(self) -> None:
        await self.page.get_by_test_id("queue-button").click()

    async def picture(self, node: str = "SaveImage") -> bytes:
        """The PNG that the node of this type shows, once it has one."""
        await self.until(f"{self.node(node)}?.imgs?.[0]?.naturalWidth > 0")
        shown = await self.js(f"new URL({self.node(node)}.imgs[0].src).search")
        whole = re.sub(r"&preview=[^&]*", "", shown)
        answer = await self.page.request.get(f"{self.url}/api/view{whole}")
        assert answer.ok and answer.headers["content-type"] == "image/png"
        return await answer.body()

    def node(self, kind: str) -> str:
        """A JavaScript expression for the first node of this type."""
        return f"app.graph.nodes.find(n => n.type === '{kind}')"

    def widget(self, kind: str, name: str) -> str:
        return f"{self.node(kind)}.widgets.find(w => w.name === '{name}')"

    async def at(self, kind: str, x: float, y: float) -> tuple[float, float]:
        """Where on the page a point of a node lies; x and y from its top left corner."""
        place = await self.js(
            f"(n => app.canvas.ds.convertOffsetToCanvas([n.pos[0] + a[0], n.pos[1] + a[1]]))"
            f"({self.node(kind)})",
            [x, y],
        )
        box = await self.page.locator("#graph-canvas").bounding_box()
        assert box is not None
        return box["x"] + place[0], box["y"] + place[1]

    async def slot(self, kind: str, name: str) -> tuple[float, float]:
        """Where on the page an input or output of a node lies."""
        node = self.node(kind)
        place = await self.js(
            f"(n => {{ const i = n.findInputSlot(a), o = n.findOutputSlot(a);"
            " const [x, y] = i >= 0 ? n.getInputPos(i) : n.getOutputPos(o);"
            f" return [x - n.pos[0], y - n.pos[1]]; }})({node})",
            name,
        )
        return await self.at(kind, *place)

    async def wire(self, kind: str, output: str, to_kind: str, input: str) -> None:
        await self.drag(await self.slot(kind, output), await self.slot(to_kind, input))
        await self.until(
            f"(n => n.inputs[n.findInputSlot('{input}')].link != null)({self.node(to_kind)})"
        )

    async def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        await self.page.mouse.move(*start)
        await self.page.mouse.down()
        await self.page.mouse.move(*end, steps=8)
        await self.page.mouse.up()

    async def add_node(self, words: str, place: tuple[float, float]) -> None:
        """Finds a node by words in the search that a double click opens, and puts it there."""
        field = self.page.get_by_role("combobox", name="Add a node...")
        for _ in range(10):  # on a busy machine the canvas takes the clicks for two single ones
            await self.page.mouse.dblclick(*place)
            with suppress(TimeoutError):
                await field.wait_for(timeout=3000)
                break
        await field.fill(words)
        await self.test_id("result-item").first.wait_for()
        await self.screenshot("search")
        await field.press("Enter")
        await field.wait_for(state="detached")
        await self.page.mouse.click(*place)

    async def drop_file(self, name: str, kind: str, content: bytes) -> None:
        """Drops a file onto the middle of the canvas."""
        transfer = await self.page.evaluate_handle(
            "([bytes, name, type]) => { const transfer = new DataTransfer();"
            " const raw = Uint8Array.from(atob(bytes), c => c.charCodeAt(0));"
            " transfer.items.add(new File([raw], name, {type})); return transfer; }",
            [b64encode(content).decode(), name, kind],
        )
        await self.page.dispatch_event("#graph-canvas", "drop", {"dataTransfer": transfer})

    def forgive(self, *parts: str) -> None:
        """Drops the complaints about something that was meant to be refused."""
        self.complaints = [one for one in self.complaints if not any(p in one for p in parts)]

    async def screenshot(self, name: str) -> None:
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        await self.page.screenshot(path=SCREENSHOTS / f"{name}.png")

    def test_id(self, name: str) -> Locator:
        return self.page.get_by_test_id(name)
