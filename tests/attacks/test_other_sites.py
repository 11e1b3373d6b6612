"""Pages of other sites in the user's browser: CSRF, DNS rebinding, WebSockets, reading answers."""

import pytest

from .conftest import Target

PROMPT = {"prompt": {"1": {"class_type": "PrimitiveInt", "inputs": {"value": 1}}}}
BODY = b'{"clear": true}'
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec_WebSocket_Version": "13",
    "Sec_WebSocket_Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8188",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "evil.example@127.0.0.1",
        "127.0.0.1@evil.example",
        "127.0.0.1:80:80",
        "127.0.0.1 evil.example",
        "127.0.0.1,evil.example",
        "0.0.0.0",
        "[::]",
        "192.168.0.1",
        "[fe80::1]",
        "2130706433",
        "",
        None,
    ],
)
def test_dns_rebinding(target: Target, host: str | None) -> None:
    """A name of another site that points to this machine: the browser sends that name."""
    for path in ("/", "/api/queue", "/view?filename=a.png"):
        assert target.get(path, Host=host).status in (400, 403)
    assert target.ask("POST", "/api/queue", BODY, Host=host).status in (400, 403)
    assert target.get("/ws", **{**UPGRADE, "Host": host}).status in (400, 403)


def test_two_hosts(target: Target) -> None:
    for second in ("evil.example", target.host):
        request = f"GET /queue HTTP/1.1\r\nHost: {target.host}\r\nHost: {second}\r\n\r\n"
        assert target.send(request.encode()).status in (400, 403)


def test_old_http_without_a_host(target: Target) -> None:
    assert target.send(b"GET /queue HTTP/1.0\r\n\r\n").status == 403


def test_a_whole_address_does_not_replace_the_host(target: Target) -> None:
    request = f"GET http://{target.host}/queue HTTP/1.1\r\nHost: evil.example\r\n\r\n"
    assert target.send(request.encode()).status in (400, 403)


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "LOCALHOST", "[::1]"])
def test_its_own_names(target: Target, name: str) -> None:
    for host in (name, f"{name}:{target.port}", f"{name}:9000"):
        assert target.get("/queue", Host=host).status == 200


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "http://evil.example",
        "https://evil.example",
        "http://127.0.0.1",
        "http://127.0.0.1:1",
        "http://localhost:{port}",
        "http://127.0.0.1:{port}.evil.example",
        "http://127.0.0.1:{port}@evil.example",
        "http://127.0.0.1:{port}/",
        "file://127.0.0.1:{port}",
        "chrome-extension://abcdefgh",
        "127.0.0.1:{port}",
        "",
    ],
)
def test_another_origin(target: Target, origin: str) -> None:
    origin = origin.format(port=target.port)
    for method, path in [
        ("POST", "/api/prompt"),
        ("POST", "/queue"),
        ("POST", "/upload/image"),
        ("DELETE", "/userdata/a"),
        ("GET", "/api/history"),
        ("GET", "/"),
        ("OPTIONS", "/api/prompt"),
    ]:
        answer = target.ask(method, path, BODY, Origin=origin)
        assert answer.status == 403, (method, path)
    assert target.get("/ws", Origin=origin, **UPGRADE).status == 403


def test_two_origins(target: Target) -> None:
    head = f"GET /queue HTTP/1.1\r\nHost: {target.host}\r\nOrigin: http://{target.host}\r\n"
    assert target.send(f"{head}Origin: null\r\n\r\n".encode()).status in (400, 403)


def test_its_own_origin(target: Target) -> None:
    own = f"http://{target.host}"
    assert target.ask("POST", "/queue", BODY, Origin=own).status == 200
    assert target.get("/ws", Origin=own, Sec_Fetch_Site="same-origin", **UPGRADE).status == 101
    assert target.get("/ws", **UPGRADE).status == 101


@pytest.mark.parametrize("site", ["cross-site", "same-site", "anything", ""])
def test_another_site(target: Target, site: str) -> None:
    """`same-site` is what another port of this machine is."""
    headers = {"Sec_Fetch_Site": site}
    for path in ("/api/queue", "/view?filename=example.png&type=input", "/settings", "/api/"):
        for mode in ("no-cors", "cors", "navigate"):
            answer = target.get(path, **headers, Sec_Fetch_Mode=mode, Sec_Fetch_Dest="image")
            assert answer.status == 403
    assert target.ask("POST", "/prompt", BODY, **headers).status == 403
    assert target.get("/ws", **headers, **UPGRADE).status == 403
    # Into a frame, by a form, or by a script: not even the canvas.
    for more in (
        {"Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "iframe"},
        {"Sec_Fetch_Mode": "no-cors", "Sec_Fetch_Dest": "script"},
        {"Sec_Fetch_Mode": "cors", "Sec_Fetch_Dest": "document"},
        {},
    ):
        assert target.get("/", **headers, **more).status == 403
    opened = {"Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
    assert target.ask("POST", "/", BODY, **headers, **opened).status == 403
    assert target.get("/queue", **headers, **opened).status == 403


def test_a_link_to_the_canvas_works(target: Target) -> None:
    opened = {"Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
    for site in ("cross-site", "same-site", "same-origin", "none"):
        answer = target.get("/?template=text_to_image", Sec_Fetch_Site=site, **opened)
        assert answer.status == 200
        assert "frame-ancestors 'self'" in answer.headers["Content-Security-Policy"]


def test_the_canvas_itself_is_answered(target: Target) -> None:
    for site in ("same-origin", "none"):
        assert target.get("/api/queue", Sec_Fetch_Site=site).status == 200


def test_nobody_else_may_read(target: Target) -> None:
    asked = {"Access_Control_Request_Method": "POST", "Sec_Fetch_Mode": "cors"}
    for answer in (
        target.get("/queue"),
        target.get("/"),
        target.get("/none"),
        target.get("/queue", Origin="http://evil.example"),
        target.ask("OPTIONS", "/prompt", **asked),
        target.ask("OPTIONS", "/prompt", Origin="http://evil.example", **asked),
        target.ask("OPTIONS", "/prompt", Origin=f"http://{target.host}", **asked),
    ):
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
