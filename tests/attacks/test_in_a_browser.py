"""Pages of other sites in a real browser, beside a canvas that is open and logged in."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from playwright.async_api import Browser, Page

from comfyui_wuerstchen.host.server.assemble import ServeSettings

from ..browser.canvas import chromium
from ..server.conftest import Running, serving

TOKEN = "correct-horse-battery"
OTHER_SITE = """
<a href="{address}">canvas</a>
<iframe src="{url}/"></iframe>
<script>
const url = "{url}"
const told = (promise) => promise.then((answer) => answer.type, (error) => "blocked")
const loads = (tag, path) => new Promise((done) => {{
  const element = document.createElement(tag)
  element.onload = () => done("loaded")
  element.onerror = () => done("blocked")
  element.src = url + path
  document.body.append(element)
}})
const opens = () => new Promise((done) => {{
  const socket = new WebSocket(url.replace("http", "ws") + "/ws")
  socket.onopen = () => done("open")
  socket.onerror = () => done("blocked")
}})
window.attack = async () => [
  await told(fetch(url + "/queue")),
  await told(fetch(url + "/queue", {{ mode: "no-cors", credentials: "include" }})),
  await told(fetch(url + "/prompt", {{ method: "POST", body: "{{}}", mode: "no-cors" }})),
  await told(fetch(url + "/prompt", {{ method: "POST", body: "{{}}", credentials: "include" }})),
  await loads("img", "/view?filename=example.png&type=input"),
  await loads("script", "/extensions/core/x.js"),
  await opens(),
]
</script>
"""


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as started:
        yield started


@pytest.fixture(params=[None, TOKEN], ids=["open", "with a token"])
def token(request: pytest.FixtureRequest) -> str | None:
    return request.param


@pytest.fixture
async def running(token: str | None, tmp_path: Path) -> AsyncIterator[Running]:
    async with serving(ServeSettings("127.0.0.1", 0, tmp_path / "data", token=token)) as started:
        yield started


@pytest.fixture
def address(running: Running, token: str | None) -> str:
    """What `wuerstchen serve` prints."""
    more = f"&token={token}" if token else ""
    return f"{running.url}/?template=text_to_image&source=comfyui-wuerstchen{more}"


@pytest.fixture
async def other(running: Running, address: str) -> AsyncIterator[TestServer]:
    async def page(request: web.Request) -> web.Response:
        text = OTHER_SITE.format(url=running.url, address=address)
        return web.Response(text=text, content_type="text/html")

    app = web.Application()
    app.add_routes([web.get("/", page)])
    async with TestServer(app) as started:
        yield started


# For the browser, another name is another site, another port of the same name is not.
@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
async def test_another_site(browser: Browser, running: Running, other: TestServer, name: str):
    page = await browser.new_page()
    for _ in ("before", "while the canvas is open and logged in"):
        await page.goto(f"http://{name}:{other.port}/")
        assert await page.evaluate("attack()") == ["blocked"] * 7
        frame = page.frames[1]
        assert not await frame.query_selector("#graph-canvas, #splash-loader")
        await page.click("a")
        await see_canvas(page, running)


async def test_the_printed_address(browser: Browser, running: Running, address: str) -> None:
    page = await browser.new_page()
    await page.goto(address)
    await see_canvas(page, running)
    # What the canvas itself does passes the gate: it sends its Origin and its cookie.
    sent = "fetch('/api/queue', {method: 'POST', body: '{}'}).then((answer) => answer.status)"
    assert await page.evaluate(sent) == 200
    assert TOKEN not in await page.evaluate("document.cookie")
    await page.reload()
    await see_canvas(page, running)


async def see_canvas(page: Page, running: Running) -> None:
    await page.wait_for_selector("#graph-canvas", timeout=60_000)
    assert page.url.startswith(running.url) and TOKEN not in page.url
