"""Requests that want the server's memory, time or disk."""

import json
import os
import socket
import threading

import pytest

from . import bombs
from .conftest import TIMEOUT_S, Target

HUGE_INTEGERS = ("9" * 4000, "-" + "9" * 4000, "1e308", "18446744073709551616")


@pytest.mark.parametrize(
    ("picture", "status"),
    [
        (bombs.png(30_000, 30_000, pixels=3_000_000), 413),
        (bombs.png(1_000_000, 1_000_000, pixels=1_000_000), 413),
        (bombs.png(13_000, 13_000), 413),
        (bombs.png_with_text(200 << 20), 400),
        (bombs.png(65_000, 1), 400),  # no WebP has such a side
    ],
    ids=["900 MP", "1 TP", "169 MP", "200 MB of text", "a line"],
)
def test_pictures(target: Target, picture: bytes, status: int) -> None:
    assert len(picture) < 1 << 20
    name = target.upload("bomb.png", picture, overwrite="true").json["name"]
    assert target.get(f"/view?filename={name}&type=input&preview=webp;90").status == status
    for channel in ("rgb", "a"):
        answer = target.get(f"/view?filename={name}&type=input&channel={channel}")
        assert answer.status in (status, 200 if picture == bombs.png(65_000, 1) else status)
    reference = json.dumps({"filename": name, "type": "input"})
    small = bombs.png(4, 4)
    asked = target.upload("m.png", small, "/upload/mask", original_ref=reference)
    assert asked.status in (status, 400)
    reference = json.dumps({"filename": "example.png", "type": "input"})
    asked = target.upload("m.png", picture, "/upload/mask", original_ref=reference)
    assert asked.status in (status, 400)
    assert target.is_alive()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bomb.png", bombs.png(30_000, 30_000, pixels=3_000_000)),
        ("whole.png", bombs.png(13_000, 13_000)),  # 2 GB as IMAGE, and as much while it is made
        ("text.png", bombs.png_with_text(200 << 20)),
        ("many.gif", bombs.gif(300, 1_500)),
    ],
)
def test_load_image(target: Target, name: str, content: bytes) -> None:
    """Refused when it is queued, or an error of that node when it runs."""
    assert len(content) < 4 << 20
    kept = target.upload(name, content, overwrite="true").json["name"]
    prompt = {
        "1": {"class_type": "LoadImage", "inputs": {"image": kept}},
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
    }
    answer = target.post("/prompt", {"prompt": prompt})
    if answer.status == 200:
        entry = target.finished(answer.json["prompt_id"])
        assert entry["status"]["status_str"] == "error"
        assert entry["status"]["messages"][-1][1]["node_id"] == "1"
    else:
        assert answer.json["node_errors"]["1"]["errors"][0]["type"] == "custom_validation_failed"
    assert target.is_alive()


def test_an_upload_that_says_its_size(target: Target) -> None:
    """Refused before any of it has come."""
    head = (
        f"POST /upload/image HTTP/1.1\r\nHost: {target.host}\r\n"
        "Content-Type: multipart/form-data; boundary=cut\r\nContent-Length: 1000000000000\r\n\r\n"
    )
    assert target.send(head.encode(), "POST").status == 413


def test_bodies_that_say_their_size(target: Target) -> None:
    for path in ("/prompt", "/queue", "/settings", "/settings/a", "/userdata/a", "/interrupt"):
        head = f"POST {path} HTTP/1.1\r\nHost: {target.host}\r\nContent-Length: 1000000000\r\n\r\n"
        assert target.send(head.encode(), "POST").status == 413, path


def _chunked(target: Target, path: str, start: bytes, megabytes: int, kind: str) -> int:
    """The status of a request whose size nobody knows before its end."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {target.host}\r\nContent-Type: {kind}\r\n"
        "Transfer-Encoding: chunked\r\n\r\n"
    )
    block = bytes(1 << 20)
    with socket.create_connection(("127.0.0.1", target.port), timeout=TIMEOUT_S) as line:
        line.sendall(head.encode() + b"%x\r\n%s\r\n" % (len(start), start))
        try:
            for _ in range(megabytes):
                line.sendall(b"%x\r\n%s\r\n" % (len(block), block))
        except OSError:
            pass  # the server has heard enough
        return int(line.recv(4096).split()[1])


def test_endless_bodies(target: Target) -> None:
    form = b'--cut\r\nContent-Disposition: form-data; name="image"; filename="big.png"\r\n\r\n'
    field = b'--cut\r\nContent-Disposition: form-data; name="type"\r\n\r\n'
    multipart = "multipart/form-data; boundary=cut"
    assert _chunked(target, "/upload/image", form, 105, multipart) == 413
    assert _chunked(target, "/upload/image", field, 2, multipart) == 413
    assert _chunked(target, "/userdata/big", b" ", 40, "application/json") == 413
    assert _chunked(target, "/prompt", b" ", 20, "application/json") == 413
    assert not (target.data / "input" / "big.png").exists()
    assert not (target.data / "user" / "default" / "big").exists()
    assert target.is_alive()


def test_a_form_of_many_parts(target: Target) -> None:
    part = b'--cut\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n'
    for name in ("/upload/image", "/upload/mask"):
        answer = target.post(name, part * 100_000, Content_Type="multipart/form-data; boundary=cut")
        assert answer.status == 400


def test_a_form_in_a_form(target: Target) -> None:
    inner = (
        b"--cut\r\nContent-Type: multipart/mixed; boundary=in\r\n\r\n--in\r\n\r\nx\r\n--in--\r\n"
    )
    body = inner * 3 + b"--cut--\r\n"
    answer = target.post("/upload/image", body, Content_Type="multipart/form-data; boundary=cut")
    assert answer.status == 400


def test_packed_bodies(target: Target) -> None:
    packed = bombs.packed_json(300 << 20)
    assert len(packed) < 1 << 20
    for path in ("/prompt", "/settings", "/userdata/a"):
        assert target.post(path, packed, Content_Encoding="gzip").status in (400, 413), path
    for encoding in ("gzip", "deflate", "br", "zstd", "gzip, gzip"):
        assert target.post("/prompt", b"not packed", Content_Encoding=encoding).status == 400
    assert target.is_alive()


@pytest.mark.parametrize("depth", [65, 1_000, 100_000, 1_000_000])
def test_deep_json(target: Target, depth: int) -> None:
    for body in bombs.nested(depth):
        for path in ("/prompt", "/queue", "/settings/a", "/jobs/cancel"):
            answer = target.post(path, body)
            assert answer.status in (400, 413)
            assert answer.json["error"]
    assert target.is_alive()


@pytest.mark.parametrize("number", HUGE_INTEGERS)
def test_huge_numbers(target: Target, number: str) -> None:
    inputs = (
        '{"width": %s, "height": 8, "batch_size": 1, "color": 0}',
        '{"width": 8, "height": 8, "batch_size": %s, "color": 0}',
        '{"width": 8, "height": 8, "batch_size": 1, "color": 0, "seed": %s}',
    )
    for one in inputs:
        node = one % number
        text = f'{{"prompt": {{"1": {{"class_type": "EmptyImage", "inputs": {node}}}}}}}'
        answer = target.post("/prompt", text.encode())
        assert answer.status == 400 and "error" in answer.json
    for body in (f'{{"prompt": {{}}, "number": {number}}}', f'{{"prompt": {number}}}', number):
        answer = target.post("/prompt", body.encode())
        assert answer.status == 400 and "error" in answer.json
    for path in (f"/history?max_items={number}", f"/jobs?limit={number}&offset={number}"):
        assert target.get(path).status in (200, 400)
    index = f"/experiment/models/preview/wuerstchen/{number}/a.png"
    assert target.get(index).status in (400, 403, 404)
    assert target.get(f"/view?filename=example.png&type=input&preview=webp;{number}").status == 200


@pytest.mark.parametrize(
    "body",
    [
        b'{"prompt": NaN}',
        b'{"prompt": {"1": {"class_type": "PrimitiveFloat", "inputs": {"value": Infinity}}}}',
        b'{"prompt": {"1": {"class_type": "PrimitiveFloat", "inputs": {"value": 1e999}}}}',
        b'{"number": -Infinity, "prompt": {}}',
        b'{"prompt": {"1": {"class_type": "\\ud800", "inputs": {}}}}',
        b'{"\\udfff": 1, "prompt": {}}',
        b'{"prompt": {"1": {"class_type": "\xff\xfe", "inputs": {}}}}',
        b'{"client_id": "\\ud800", "prompt": {}}',
        b"\x00" * 100,
        b"",
    ],
)
def test_what_is_not_quite_json(target: Target, body: bytes) -> None:
    for path in ("/prompt", "/queue", "/settings", "/jobs/cancel"):
        answer = target.post(path, body)
        assert answer.status == 400
        assert answer.json["error"]


def test_many_at_once(target: Target) -> None:
    """Pictures that may be decoded, all at the same time."""
    target.upload("large.png", bombs.png(8_000, 8_000), overwrite="true")
    statuses: list[int] = []

    def ask() -> None:
        path = "/view?filename=large.png&type=input&preview=jpeg;1"
        statuses.append(target.get(path).status)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert target.is_alive()
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert statuses == [200] * 8


def test_lines_that_never_end(target: Target) -> None:
    word = "a" * 100_000
    for head in (
        f"GET /{word} HTTP/1.1\r\nHost: {target.host}\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: {target.host}\r\nX: {word}\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: {word}\r\n\r\n",
        "".join([f"GET / HTTP/1.1\r\nHost: {target.host}\r\n", *["X: y\r\n"] * 40_000, "\r\n"]),
    ):
        assert target.send(head.encode()).status in (400, 413, 431)
    assert target.is_alive()


def test_a_frame_that_is_too_large(target: Target) -> None:
    """On the WebSocket: the connection ends, the server goes on."""
    head = (
        f"GET /ws HTTP/1.1\r\nHost: {target.host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", target.port), timeout=TIMEOUT_S) as line:
        line.sendall(head.encode())
        assert line.recv(12) == b"HTTP/1.1 101"
        line.sendall(b"\x81\xff" + (1 << 40).to_bytes(8, "big") + os.urandom(4))
        while line.recv(1 << 16):
            pass
    assert target.is_alive()
