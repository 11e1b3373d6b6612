"""A person's own files and settings, with ComfyUI's answers."""

import asyncio
import json
import time
from typing import Any
from urllib.parse import quote

import pytest

from comfyui_wuerstchen.host.server.routes.settings import BROKEN_FILE, FILE

from .conftest import Running

GRAPH = b'{"nodes": []}'


def url(name: str, more: str = "") -> str:
    """As the canvas writes it: the slashes of the name are %2F."""
    return f"/api/userdata/{quote(name, safe='')}{more}"


async def save(running: Running, name: str, body: bytes = GRAPH, query: str = "") -> Any:
    return await running.ask("POST", url(name, query), data=body)


async def test_there_is_one_user(running: Running) -> None:
    assert await running.get("/api/users") == {"storage": "server", "migrated": True}


async def test_save_read_and_delete(running: Running) -> None:
    name = "workflows/für später/50% größer.json"
    before = int(time.time() * 1000) - 1
    assert await save(running, name) == (200, name)
    status, info = await save(running, name, b"{}", "?overwrite=true&full_info=true")
    assert status == 200
    assert info.keys() == {"path", "size", "modified", "created"}
    assert (info["path"], info["size"]) == (name, 2)
    assert before <= info["modified"] and isinstance(info["created"], int)
    async with running.session.get(running.url + url(name)) as answer:
        assert (answer.status, await answer.read()) == (200, b"{}")
        assert answer.headers["Content-Disposition"].startswith("attachment")
        assert answer.headers["Content-Type"] == "application/octet-stream"
    assert (running.host.user / "default" / name).read_bytes() == b"{}"
    assert await running.ask("DELETE", url(name)) == (204, "")
    assert (await running.ask("GET", url(name)))[0] == 404
    assert (await running.ask("DELETE", url(name)))[0] == 404


async def test_a_file_is_not_replaced_unasked(running: Running) -> None:
    await save(running, "workflows/a.json")
    assert (await save(running, "workflows/a.json", b"{}", "?overwrite=false"))[0] == 409
    assert await running.ask("GET", url("workflows/a.json")) == (200, GRAPH.decode())


async def test_of_many_writers_only_one_is_first(running: Running) -> None:
    answers = await asyncio.gather(
        *(save(running, "workflows/a.json", b"%d" % n, "?overwrite=false") for n in range(20))
    )
    statuses = [status for status, _ in answers]
    assert sorted(statuses) == [200] + [409] * 19
    kept = (running.host.user / "default" / "workflows" / "a.json").read_bytes()
    assert kept == b"%d" % statuses.index(200)


async def test_move(running: Running) -> None:
    await save(running, "workflows/a.json")
    to_b = url("workflows/a.json", f"/move/{quote('workflows/sub/b.json', safe='')}")
    status, info = await running.ask("POST", to_b + "?overwrite=false&full_info=true")
    assert (status, info["path"]) == (200, "workflows/sub/b.json")
    assert (await running.ask("POST", to_b))[0] == 404
    await save(running, "workflows/a.json", b"new")
    assert (await running.ask("POST", to_b + "?overwrite=false"))[0] == 409
    assert await running.ask("POST", to_b) == (200, "workflows/sub/b.json")
    assert await running.ask("GET", url("workflows/sub/b.json")) == (200, "new")
    assert (await running.ask("GET", url("workflows/a.json")))[0] == 404


async def test_lists(running: Running) -> None:
    for name in ("workflows/b.json", "workflows/sub/a.json", "workflows/.index.json", "x.json"):
        await save(running, name)

    async def names(query: str) -> Any:
        return await running.get(f"/api/userdata?{query}")

    assert await names("dir=workflows") == ["b.json"]
    assert await names("dir=workflows&recurse=true") == ["b.json", "sub/a.json"]
    assert await names("dir=workflows/&recurse=true&split=true") == [
        ["b.json", "b.json"],
        ["sub/a.json", "sub", "a.json"],
    ]
    full = await names("dir=workflows&recurse=true&split=false&full_info=true")
    assert [(one["path"], one["size"]) for one in full] == [
        ("b.json", len(GRAPH)),
        ("sub/a.json", len(GRAPH)),
    ]
    assert await names("dir=.") == ["x.json"]
    assert (await running.ask("GET", "/api/userdata"))[0] == 400
    assert (await running.ask("GET", "/api/userdata?dir=none"))[0] == 404


async def test_what_the_canvas_reads_before_anything_is_saved(running: Running) -> None:
    """It asks at each start; a 404 would stand in the browser's console."""
    for folder in ("workflows", "subgraphs", "keybindings"):
        assert await running.get(f"/api/userdata?dir={folder}&full_info=true") == []
    assert await running.get(url("workflows/.index.json")) == {"favorites": []}
    assert await running.get(url("comfy.templates.json")) == []
    async with running.session.get(running.url + url("user.css")) as answer:
        assert (answer.status, answer.content_type) == (200, "text/css")
        assert await answer.text() == ""


async def test_a_style_sheet_of_ones_own(running: Running) -> None:
    await save(running, "user.css", b"body { color: red }")
    await save(running, "other.css", b"body { color: red }")
    async with running.session.get(running.url + url("user.css")) as answer:
        assert (answer.content_type, await answer.text()) == ("text/css", "body { color: red }")
    async with running.session.get(running.url + url("other.css")) as answer:
        assert answer.content_type == "application/octet-stream"


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("workflows", 400),
        ("workflows/a.json/b.json", 400),
        ("x" * 250, 400),
        ("x" * 300, 403),
        ("../settings.json", 403),
        ("../wuerstchen.db", 403),
        (".wuerstchen.lock", 403),
    ],
)
async def test_names_that_no_file_can_have(running: Running, name: str, status: int) -> None:
    await save(running, "workflows/a.json")
    got, answer = await save(running, name)
    assert (got, list(answer)) == (status, ["error"])


async def test_a_large_file_is_refused(running: Running) -> None:
    assert (await save(running, "a.bin", b"x" * (33 << 20)))[0] == 413
    assert (await running.ask("GET", url("a.bin")))[0] == 404


async def test_the_hosts_own_files_are_elsewhere(running: Running) -> None:
    await save(running, "settings.json", b"mine")
    await running.ask("POST", "/api/settings/My.Setting", data=b"1")
    assert (await running.get("/api/settings"))["My.Setting"] == 1
    assert await running.ask("GET", url("settings.json")) == (200, "mine")


async def test_settings(running: Running) -> None:
    assert await running.get("/api/settings") == {"Comfy.Notification.ShowVersionUpdates": False}
    assert await running.get("/api/settings/Comfy.Unknown") is None
    assert await running.ask("POST", "/api/settings/A", data=b'{"deep": [1]}') == (200, "")
    assert await running.ask("POST", "/api/settings", json={"B": None, "C": "ü"}) == (200, "")
    assert await running.get("/api/settings/A") == {"deep": [1]}
    assert await running.get("/api/settings/Comfy.Notification.ShowVersionUpdates") is False
    changed = {"Comfy.Notification.ShowVersionUpdates": True, "A": 2}
    await running.ask("POST", "/api/settings", json=changed)
    assert await running.get("/api/settings") == {**changed, "B": None, "C": "ü"}


async def test_the_canvas_never_opens_its_built_in_graph(running: Running) -> None:
    await running.ask("POST", "/api/settings/Comfy.TutorialCompleted", data=b"true")
    assert await running.get("/api/settings/Comfy.TutorialCompleted") is None


async def test_no_setting_is_lost_between_writers(running: Running) -> None:
    names = [f"Name.{number}" for number in range(40)]
    await asyncio.gather(*(running.ask("POST", f"/settings/{name}", json=name) for name in names))
    assert {name: name for name in names}.items() <= (await running.get("/settings")).items()


@pytest.mark.parametrize("text", ["{", "[1]", "\xff", ""])
async def test_a_broken_file_of_settings_is_put_aside(running: Running, text: str) -> None:
    (running.host.user / FILE).write_text(text, encoding="latin-1")
    await running.ask("POST", "/settings/A", data=b"1")
    assert (await running.get("/settings"))["A"] == 1
    assert (running.host.user / BROKEN_FILE).read_text(encoding="latin-1") == text


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/settings", b"[]", 400),
        ("/settings", b"{", 400),
        ("/settings/A", b"", 400),
        (f"/settings/{'x' * 300}", b"1", 400),
        ("/settings/A", json.dumps("x" * (5 << 20)).encode(), 413),
        ("/settings/A", b"NaN", 400),
    ],
)
async def test_settings_that_are_refused(running, path: str, body: bytes, status: int) -> None:
    assert (await running.ask("POST", path, data=body))[0] == status
    assert "A" not in await running.get("/settings")
