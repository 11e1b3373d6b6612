"""What answers tell and carry: no headers from outside, no places, no tracebacks, no scripts."""

import json
from pathlib import Path

import pytest

from comfyui_wuerstchen.host.server.paths import without_places

from .conftest import Target

SCRIPT = b"<script>alert(1)</script>"
ACTIVE = (
    "x.html",
    "x.htm",
    "x.HTML",
    "x.xhtml",
    "x.svg",
    "x.svgz",
    "x.xml",
    "x.xsl",
    "x.rss",
    "x.js",
    "x.mjs",
    "x.css",
    "x.mht",
    "x.eml",
    "x.pdf",
    "x.swf",
    "x.wasm",
    "x.png.html",
    "x.unknown",
    "x",
)


@pytest.mark.parametrize("name", ACTIVE)
def test_what_a_browser_could_run(target: Target, name: str) -> None:
    """Uploaded or saved by somebody, then opened as a page of this server."""
    kept = target.upload(name, SCRIPT, overwrite="true").json["name"]
    target.ask("POST", f"/userdata/{name}", SCRIPT)
    for path in (f"/view?filename={kept}&type=input", f"/userdata/{name}"):
        for more in ({}, {"Sec_Fetch_Dest": "image"}, {"Sec_Fetch_Dest": "document"}):
            answer = target.get(path, **more)
            assert (answer.status, answer.body) == (200, SCRIPT)
            assert answer.headers["Content-Type"] == "application/octet-stream"
            assert answer.headers["Content-Disposition"].startswith("attachment;")
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Content-Security-Policy"].endswith("; sandbox")


@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.webp", "x.mp4", "x.txt", "x.gif"])
def test_scripts_that_are_called_pictures(target: Target, name: str) -> None:
    kept = target.upload(name, SCRIPT, overwrite="true").json["name"]
    answer = target.get(f"/view?filename={kept}&type=input")
    assert answer.headers["Content-Type"].partition(";")[0] in (
        "image/png",
        "image/jpeg",
        "image/webp",
        "image/gif",
        "video/mp4",
        "text/plain",
    )
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in answer.headers["Content-Security-Policy"]
    assert target.get(f"/view?filename={kept}&type=input&preview=webp").status == 400


def test_lines_in_names_end_no_header(target: Target) -> None:
    folder = target.data / "output"
    for name in ('a\r\nX-Evil: 1".png', 'b"; evil=".png', "c\n\n<script>.html", "d\u2028é\\.png"):
        (folder / name).write_bytes(b"picture")
    for written in (
        "a%0D%0AX-Evil:%201%22.png",
        "b%22;%20evil=%22.png",
        "c%0A%0A%3Cscript%3E.html",
        "d%E2%80%A8%C3%A9%5C.png",
    ):
        answer = target.get(f"/view?filename={written}")
        assert answer.status in (200, 403, 404)
        assert answer.status == 200 or written[0] != "b"
        assert "X-Evil" not in answer.headers and len(answer.headers.get_all("Content-Type")) == 1
        disposition = answer.headers.get("Content-Disposition", '""')
        assert disposition.count('"') == 2 and disposition.isascii()


@pytest.mark.parametrize(
    "path",
    [
        "/%0D%0AX-Evil:%201",
        "/view?filename=%0D%0AX-Evil:%201",
        "/view?filename=example.png&type=input&preview=webp%0D%0AX-Evil:%201",
        "/userdata/%0D%0AX-Evil:%201",
        "/ws?clientId=%0D%0AX-Evil:%201",
        "/?token=%0D%0AX-Evil:%201",
        "/api/jobs?sort_by=%0D%0AX-Evil:%201",
        "/extensions/%0D%0AX-Evil:%201/x",
    ],
)
def test_lines_in_addresses_end_no_header(target: Target, path: str) -> None:
    for headers in ({}, {"Accept": "text/html"}):
        answer = target.get(path, **headers)
        assert answer.status < 500 and "X-Evil" not in answer.headers


def test_lines_in_addresses_end_no_line_of_the_log(target: Target) -> None:
    target.get("/history%0AERROR:%20forged")
    target.post("/prompt", {"prompt": {"1": {"class_type": "A\nERROR: forged", "inputs": {}}}})
    lines = target.get("/internal/logs").json.splitlines()
    assert not [line for line in lines if line.startswith("ERROR: forged")]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/nothing", None),
        ("GET", "/api/nothing", None),
        ("POST", "/view", b""),
        ("PUT", "/prompt", b"{}"),
        ("PATCH", "/internal/logs/subscribe", b"[]"),
        ("PATCH", "/internal/logs/subscribe", b"{"),
        ("DELETE", "/", None),
        ("TRACE", "/", None),
        ("CONNECT", "/", None),
        ("POST", "/queue", b'{"delete": 1}'),
        ("POST", "/queue", b'{"delete": [1, null, {}]}'),
        ("POST", "/history", b'{"delete": "x", "clear": []}'),
        ("POST", "/jobs/cancel", b'{"job_ids": [[], {}, 1]}'),
        ("POST", "/jobs/../cancel", b""),
        ("POST", "/interrupt", b"[]"),
        ("POST", "/interrupt", b'{"prompt_id": {"a": 1}}'),
        ("POST", "/free", b"1"),
        ("POST", "/upload/image", b"x"),
        ("GET", "/jobs?limit=-1", None),
        ("GET", "/jobs?status=%00", None),
        ("GET", "/jobs/%00", None),
        ("GET", "/history/%F0%90%28", None),
        ("GET", "/history?max_items=x", None),
        ("GET", "/object_info/%00", None),
        ("GET", "/ws", None),
        ("GET", "/settings/%ED%A0%80", None),
        ("GET", "/userdata/%ED%A0%80", None),
        ("GET", "/view?filename=%ED%A0%80.png", None),
        ("GET", "/userdata?dir=%ED%A0%80", None),
        ("GET", "/experiment/models/preview/wuerstchen/0/%ED%A0%80", None),
    ],
)
def test_errors_are_short(target: Target, method: str, path: str, body: bytes | None) -> None:
    # That none of them tells a place or a traceback, `Target.send` looks at.
    answer = target.ask(method, path, body)
    assert answer.status < 500
    if answer.status >= 400:
        assert len(answer.body) < 1_000
        assert answer.headers["Content-Type"].startswith(("application/json", "text/plain"))
    assert target.is_alive()


def test_broken_requests(target: Target) -> None:
    host = f"Host: {target.host}\r\n"
    for request in (
        "GET\r\n\r\n",
        f"GET /queue HTTP/9.9\r\n{host}\r\n",
        f"GET /queue HTTP/1.1\r\n{host} folded: x\r\n\r\n",
        f"GET /queue HTTP/1.1\r\n{host}Na me: x\r\n\r\n",
        f"G\0T /queue HTTP/1.1\r\n{host}\r\n",
        f"GET /que\0ue HTTP/1.1\r\n{host}\r\n",
        f"POST /queue HTTP/1.1\r\n{host}Content-Length: x\r\n\r\n",
        f"POST /queue HTTP/1.1\r\n{host}Content-Length: -1\r\n\r\n",
        f"POST /queue HTTP/1.1\r\n{host}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{{}}",
        f"POST / HTTP/1.1\r\n{host}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{{}}",
        f"POST /queue HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
        f"GET /ws HTTP/1.1\r\n{host}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    ):
        assert target.send(request.encode()).status in (400, 404, 405), request
    assert target.is_alive()


def test_links_in_a_graph_to_nowhere(target: Target) -> None:
    """ComfyUI answers these with a traceback."""
    for link in (["77", 0], ["1", 9], ["1", -1], ["2", 0], ["", 0], ["1", 0.5], [None, 0]):
        prompt = {
            "1": {"class_type": "PrimitiveInt", "inputs": {"value": 1}},
            "2": {"class_type": "PreviewAny", "inputs": {"source": link}},
        }
        answer = target.post("/prompt", {"prompt": prompt})
        assert answer.status in (200, 400)
        text = json.dumps(answer.json)
        assert '"traceback": ["' not in text and ".py" not in text, link


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("'/home/jane/models/a.pt' is broken", "'a.pt' is broken"),
        ("put it into /data/models.", "put it into models."),
        ("no file: C:\\Users\\jane\\a.pt", "no file: a.pt"),
        ("(/a/b/c)", "(c)"),
        ("1/2 of 3/4/5, w/h, input/a.png", "1/2 of 3/4/5, w/h, input/a.png"),
        ("see https://example.org/a/b", "see https://example.org/a/b"),
    ],
)
def test_places_in_messages(text: str, told: str) -> None:
    assert without_places(text) == told


def test_what_the_server_says_of_itself(target: Target) -> None:
    paths = ("/system_stats", "/features", "/object_info", "/internal/folder_paths", "/extensions")
    for path in (
        *paths,
        "/experiment/models",
        "/internal/logs/raw",
        "/i18n",
        "/workflow_templates",
    ):
        answer = target.get(path)
        assert answer.status == 200
        assert str(Path.home()) not in answer.body.decode() or str(Path.home()) == "/"
        assert answer.headers["Server"] == "wuerstchen"
