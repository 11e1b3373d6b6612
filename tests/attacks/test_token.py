"""A server that asks for a token: nothing works without it, everything with it."""

from collections.abc import Iterator

import pytest

from comfyui_wuerstchen.host.server.assemble import ServeSettings
from comfyui_wuerstchen.host.server.routes import FAMILIES
from comfyui_wuerstchen.wuerstchen_core.errors import WuerstchenError

from .conftest import Target, serve

TOKEN = "correct-horse.battery_staple"
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec_WebSocket_Version": "13",
    "Sec_WebSocket_Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}
WRONG = (
    {},
    {"Authorization": "Bearer wrong"},
    {"Authorization": f"Bearer {TOKEN}x"},
    {"Authorization": f"Bearer {TOKEN[:-1]}"},
    {"Authorization": f"Basic {TOKEN}"},
    {"Authorization": TOKEN},
    {"Authorization": "Bearer"},
    {"Authorization": "Bearer \xff\xfe"},
    {"Cookie": "wuerstchen_token=wrong"},
    {"Cookie": f"other={TOKEN}"},
    {"X-Token": TOKEN},
)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    data = tmp_path_factory.mktemp("machine") / "data"
    with serve(ServeSettings(host="127.0.0.1", port=0, data=data, token=TOKEN)) as started:
        yield started


def cookie(guarded: Target) -> str:
    """What a browser sends back after it opened the address with the token."""
    answer = guarded.get(f"/?token={TOKEN}", Accept="text/html")
    return answer.headers["Set-Cookie"].partition(";")[0]


def test_every_route_asks(guarded: Target) -> None:
    for route in (route for family in FAMILIES for route in family.ROUTES):
        path = route.path.replace("{path:.+}", "index.html").replace("{", "").replace("}", "")
        path = path.replace("root_index:[0-9]1,4", "0").replace("name:.*", "a.png")
        for prefix in ("", "/api"):
            answer = guarded.ask(route.method, f"{prefix}{path}", b"{}")
            assert (answer.status, list(answer.json)) == (401, ["error"]), path
            assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("headers", WRONG)
def test_a_wrong_token(guarded: Target, headers: dict[str, str]) -> None:
    for path in ("/", "/queue", "/queue?token=wrong", "/queue?token=", "/assets/index.js"):
        assert guarded.get(path, **headers).status == 401
    assert guarded.ask("POST", "/prompt", b"{}", **headers).status == 401
    assert guarded.get("/ws", **headers, **UPGRADE).status == 401
    assert guarded.get("/ws?token=wrong", **headers, **UPGRADE).status == 401


def test_a_wrong_token_is_not_repeated(guarded: Target) -> None:
    for accept in ("text/html", "*/*"):
        answer = guarded.get("/?token=%3Cscript%3Ewrong", Accept=accept)
        assert answer.status == 401 and b"wrong" not in answer.body
        assert "Set-Cookie" not in answer.headers
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_a_page_without_the_token_says_what_to_do(guarded: Target) -> None:
    answer = guarded.get("/", Accept="text/html,*/*")
    assert answer.status == 401
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert b"?token=" in answer.body


def test_programs_with_the_token(guarded: Target) -> None:
    for headers in (
        {"Authorization": f"Bearer {TOKEN}"},
        {"Authorization": f"bearer {TOKEN}"},
        {"Cookie": cookie(guarded)},
    ):
        assert guarded.get("/queue", **headers).status == 200
        assert guarded.get("/", **headers).status == 200
        assert guarded.get("/ws", **headers, **UPGRADE).status == 101
        assert guarded.ask("POST", "/queue", b"{}", **headers).status == 200
    assert guarded.get(f"/api/queue?token={TOKEN}").status == 200
    assert guarded.get(f"/ws?clientId=a&token={TOKEN}", **UPGRADE).status == 101
    assert guarded.ask("POST", f"/queue?token={TOKEN}", b"{}").status == 200


def test_a_browser_gets_a_cookie_and_forgets_the_token(guarded: Target) -> None:
    address = f"/?template=text_to_image&token={TOKEN}&source=a%26b"
    answer = guarded.get(address, Accept="text/html,application/xhtml+xml,*/*;q=0.8")
    value, *flags = answer.headers["Set-Cookie"].split("; ")
    assert value == f"wuerstchen_token_{guarded.port}={TOKEN}"
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(flags)
    assert not [flag for flag in flags if flag.startswith(("Domain", "Expires", "Max-Age"))]
    assert answer.status == 200 and TOKEN.encode() not in answer.body
    assert b'url=/?template=text_to_image&amp;source=a%26b"' in answer.body
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize("path", ["//evil.example/", "/\\evil.example/", "///evil.example"])
def test_the_way_on_leads_nowhere_else(guarded: Target, path: str) -> None:
    answer = guarded.get(f"{path}?token={TOKEN}", Accept="text/html")
    if b"refresh" in answer.body:
        target = answer.body.partition(b"url=")[2]
        assert target.startswith(b"/") and target[1:2] not in (b"/", b"\\")


def test_the_token_alone_is_not_enough_for_other_sites(guarded: Target) -> None:
    headers = {"Cookie": cookie(guarded)}
    assert guarded.get("/queue", Origin="http://evil.example", **headers).status == 403
    assert guarded.get("/queue", Host="evil.example", **headers).status == 403
    assert guarded.get("/queue", Sec_Fetch_Site="same-site", **headers).status == 403
    assert guarded.get("/ws", Origin="null", **headers, **UPGRADE).status == 403
    assert guarded.get(f"/queue?token={TOKEN}", Sec_Fetch_Site="cross-site").status == 403


def test_the_token_stands_in_no_answer(guarded: Target) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    for path in ("/internal/logs", "/internal/logs/raw", "/system_stats", "/features", "/settings"):
        assert TOKEN.encode() not in guarded.get(path, **headers).body


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "my.box"])
def test_other_machines_need_a_token(tmp_path, host: str) -> None:
    with (
        pytest.raises(WuerstchenError, match="--token"),
        serve(ServeSettings(host=host, port=0, data=tmp_path)),
    ):
        pass
    for settings in (
        ServeSettings(host=host, port=0, data=tmp_path, token=TOKEN),
        ServeSettings(host=host, port=0, data=tmp_path, no_auth=True),
    ):
        with serve(settings) as started:
            assert started.get("/queue").status == (401 if settings.token else 200)


@pytest.mark.parametrize("token", ["short", "with space in it", "ünïcödé-token", "a" * 201])
def test_weak_tokens(tmp_path, token: str) -> None:
    with (
        pytest.raises(WuerstchenError, match="--token"),
        serve(ServeSettings(host="127.0.0.1", port=0, data=tmp_path, token=token)),
    ):
        pass
