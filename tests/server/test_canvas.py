"""The canvas's page and files."""

import json
import re
from pathlib import Path

import pytest
from yarl import URL

from comfyui_wuerstchen.host.server import frontend
from comfyui_wuerstchen.wuerstchen_core.errors import WuerstchenError

from .conftest import Running


async def headers(running: Running, path: str, **options) -> tuple[int, dict[str, str]]:
    async with running.session.get(f"{running.url}{path}", **options) as answer:
        return answer.status, dict(answer.headers)


async def test_the_page_is_never_kept(running: Running) -> None:
    status, sent = await headers(running, "/")
    assert status == 200
    assert sent["Content-Type"] == "text/html; charset=utf-8"
    assert "no-store" in sent["Cache-Control"]


async def test_what_the_page_names_is_there(running: Running) -> None:
    _, page = await running.ask("GET", "/")
    named = re.findall(r'<(?:script|link)[^>]* (?:src|href)="([^"]+)"', page)
    assert len(named) > 5
    for path in named:
        status, sent = await headers(running, "/" + path.removeprefix("./"))
        assert status == 200, path
        if path.endswith(".js"):
            assert sent["Content-Type"] == "text/javascript; charset=utf-8"
        if path.endswith(".css"):
            assert sent["Content-Type"].startswith("text/css")


async def test_files_named_by_their_content_are_kept_for_good(running: Running) -> None:
    _, page = await running.ask("GET", "/")
    script = re.search(r'src="\./(assets/[^"]+\.js)"', page)
    assert script is not None
    assert "immutable" in (await headers(running, f"/{script[1]}"))[1]["Cache-Control"]


async def test_other_files_are_asked_for_again(running: Running) -> None:
    _, sent = await headers(running, "/scripts/app.js")
    assert sent["Cache-Control"] == "no-cache"
    same = {"If-None-Match": sent["Etag"]}
    assert (await headers(running, "/scripts/app.js", headers=same))[0] == 304


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/assets/favicon.ico", "image/"),
        ("/materialdesignicons.min.css", "text/css; charset=utf-8"),
        ("/assets/sorted-custom-node-map.json", "application/json; charset=utf-8"),
        ("/assets/images/default-template.png", "image/png"),
    ],
)
async def test_types(running: Running, path: str, content_type: str) -> None:
    status, sent = await headers(running, path)
    assert status == 200
    assert sent["Content-Type"].startswith(content_type)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/nothing.html", 404),
        ("/assets", 404),
        ("/api/nothing", 404),
        ("/..%2F__init__.py", 403),
        ("/assets/..%2F..%2F__init__.py", 403),
        ("/%2Fetc%2Fpasswd", 403),
        ("/a%00b", 403),
    ],
)
async def test_refusals_are_json_without_a_path(running: Running, path: str, status: int) -> None:
    url = URL(f"{running.url}{path}", encoded=True)
    async with running.session.get(url) as answer:
        text = await answer.text()
        assert (answer.status, answer.content_type) == (status, "application/json")
    assert json.loads(text)["error"]
    assert "site-packages" not in text


async def test_the_page_of_user_styles_is_empty(running: Running) -> None:
    assert (await headers(running, "/user.css"))[1]["Content-Type"].startswith("text/css")
    assert await running.ask("GET", "/user.css") == (200, "")


def test_a_missing_package_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frontend, "MODULE", "no_such_frontend_package")
    frontend.frontend_folder.cache_clear()
    with pytest.raises(WuerstchenError, match=r"pip install comfyui-wuerstchen\[host\]"):
        frontend.frontend_folder()


def test_the_package_is_found() -> None:
    frontend.frontend_folder.cache_clear()
    assert (frontend.frontend_folder() / "index.html").is_file()
    assert isinstance(frontend.frontend_folder(), Path)
    assert frontend.frontend_version().startswith("1.")
