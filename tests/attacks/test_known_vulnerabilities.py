"""What was found in ComfyUI and its Manager, one test for each report, as it was reported."""

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from comfyui_wuerstchen.host.server.assemble import ServeSettings

from .conftest import SECRET, Target, serve

SVG = b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"><script>alert(1)</script></svg>'
HTML = b"<!doctype html><script>fetch('/prompt', {method: 'POST'})</script>"
OTHER_SITE = {"Origin": "https://evil.example", "Sec_Fetch_Site": "cross-site"}
PROMPT = {
    "1": {"class_type": "PrimitiveInt", "inputs": {"value": 1}},
    "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
}


def check_harmless(target: Target, path: str, content: bytes) -> None:
    """A browser that opens this address saves a file and runs nothing."""
    for destination in ("document", "iframe", "image", "script", "style", "object", None):
        answer = target.get(path, Sec_Fetch_Dest=destination)
        assert answer.body == content
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert answer.headers["Content-Disposition"].startswith("attachment")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_cve_2024_10099_stored_xss_through_view(target: Target) -> None:
    """A page uploaded as an "image", then opened under the server's own address."""
    name = target.upload("cve-2024-10099.html", HTML).json["name"]
    check_harmless(target, f"/view?filename={name}&type=input", HTML)
    check_harmless(target, f"/api/view?filename={name}%20[input]&type=output", HTML)


def test_cve_2024_10481_csrf(target: Target) -> None:
    """A page of another site queues prompts, uploads files and clears the history."""
    before, uploads = target.get("/history").body, target.get("/internal/files/input").body
    simple = {"Content_Type": "text/plain", **OTHER_SITE}
    assert target.post("/prompt", {"prompt": PROMPT}, **simple).status == 403
    assert target.post("/api/prompt", {"prompt": PROMPT}, **simple).status == 403
    assert target.post("/queue", {"clear": True}, **simple).status == 403
    assert target.post("/history", {"clear": True}, **simple).status == 403
    assert target.post("/interrupt", {}, **simple).status == 403
    assert target.post("/upload/image", HTML, **simple).status == 403
    assert target.post("/userdata/user.css", HTML, **simple).status == 403
    # Before Sec-Fetch-Site, and where a proxy takes it away, Origin alone decides.
    assert target.post("/prompt", {"prompt": PROMPT}, Origin="https://evil.example").status == 403
    assert target.post("/prompt", {"prompt": PROMPT}, Sec_Fetch_Site="cross-site").status == 403
    assert target.get("/history").body == before
    assert target.get("/internal/files/input").body == uploads


def test_ghsa_5xxr_jvhm_jxmj_origin_null(target: Target) -> None:
    """A sandboxed frame sends `Origin: null`, which passed; then the Manager installed code."""
    assert target.post("/prompt", {"prompt": PROMPT}, Origin="null").status == 403
    for path in ("/customnode/install", "/customnode/install/git_url", "/manager/reboot"):
        assert target.post(path, {"url": "https://evil.example"}, Origin="null").status == 403


def test_there_is_no_manager_that_installs_code(target: Target) -> None:
    before = set(sys.modules)
    for path in (
        "/customnode/install",
        "/customnode/install/git_url",
        "/customnode/install/pip",
        "/manager/queue/install",
        "/v2/manager/queue/task",
        "/v2/customnode/install/pip",
        "/manager/reboot",
    ):
        for prefix in ("", "/api"):
            answer = target.post(f"{prefix}{path}", {"url": "https://evil.example/x", "id": "x"})
            assert answer.status in (404, 405), path
            assert target.get(f"{prefix}{path}?value=x").status in (404, 405)
    assert set(sys.modules) == before


def test_cve_2026_56670_svg_xss_through_view(target: Target) -> None:
    """Of GHSA-779p-m5rp-r4h4: an SVG picture is a page with scripts."""
    name = target.upload("cve-2026-56670.svg", SVG).json["name"]
    check_harmless(target, f"/view?filename={name}&type=input", SVG)
    (target.data / "output" / "made.SVG").write_bytes(SVG)
    check_harmless(target, "/view?filename=made.SVG", SVG)
    for asked in ("preview=webp", "channel=rgb", "channel=a"):
        assert target.get(f"/view?filename={name}&type=input&{asked}").status == 400


@pytest.mark.parametrize("slash", ["/", "%2f", "%2F", "%5c", "%252f"])
@pytest.mark.parametrize("name", ["secret.png", "secret.preview.png", "secret"])
def test_cve_2026_56671_traversal_in_model_previews(target: Target, slash: str, name: str) -> None:
    """Of GHSA-779p-m5rp-r4h4: the rest of the address was joined to the folder of weights."""
    for folder in (target.data, target.data.parent):
        for picture in ("secret.png", "secret.preview.png"):
            Image.new("RGB", (3, 3)).save(folder / picture)
    for ups in range(1, 6):
        for index in (0, 1):
            path = f"..{slash}" * ups + name
            answer = target.get(f"/experiment/models/preview/wuerstchen/{index}/{path}")
            assert answer.status in (400, 403, 404)


def test_cve_2026_56671_previews_through_links(target: Target) -> None:
    models = target.data / "models"
    Image.new("RGB", (3, 3)).save(target.data / "private.png")
    (models / "real.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    (models / "real.png").symlink_to(target.data / "private.png")
    index = target.get("/experiment/models").json[0]["folders"].index("models")
    path = f"/experiment/models/preview/wuerstchen/{index}/real.webp"
    assert target.get(path).status == 404
    (models / "real.png").unlink()
    Image.new("RGB", (3, 3)).save(models / "real.png")
    assert target.get(path).status == 200  # so it was the link that was refused


def test_cve_2026_56672_xss_through_userdata(target: Target) -> None:
    """Of GHSA-779p-m5rp-r4h4: a saved file opened under the server's own address."""
    for name, content in (("evil.html", HTML), ("evil.svg", SVG), ("workflows/evil.xml", SVG)):
        path = f"/userdata/{name.replace('/', '%2F')}"
        assert target.ask("POST", path, content).status == 200
        check_harmless(target, path, content)
        check_harmless(target, f"/api{path}", content)
    # The one file that is shown as what it is can hold no script.
    target.ask("POST", "/userdata/user.css", HTML)
    answer = target.get("/userdata/user.css")
    assert answer.headers["Content-Type"].startswith("text/css")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    target.ask("DELETE", "/userdata/user.css")


def test_cve_2026_56673_traversal_of_load_image(target: Target) -> None:
    """Of GHSA-779p-m5rp-r4h4: the name went from the prompt to the disk, with an annotation too.
    More of it, also while running, in test_graph_values."""
    for node, key in (("LoadImage", "image"), ("LoadLatent", "latent")):
        for name in (
            "../secret.png",
            "../../secret.png",
            f"{target.data}/secret.png",
            "../secret.png [input]",
            "../secret.png [output]",
            "../../secret.png [temp]",
            "link-secret.png",
            "/etc/passwd",
        ):
            prompt = {
                "1": {"class_type": node, "inputs": {key: name}},
                "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
            }
            body = json.dumps({"prompt": prompt}).encode()
            if str(target.data) in name:
                continue  # the answer repeats the name that came
            answer = target.post("/prompt", body)
            assert answer.status == 400
            (error,) = answer.json["node_errors"]["1"]["errors"]
            assert error["type"] == "custom_validation_failed"


def test_cve_2026_56674_origin_null_on_other_routes(target: Target) -> None:
    """Of GHSA-779p-m5rp-r4h4, disputed there: `Origin: null` without Sec-Fetch-Site."""
    for method, path in (
        ("POST", "/upload/image"),
        ("POST", "/userdata/x"),
        ("POST", "/settings/x"),
        ("POST", "/free"),
        ("DELETE", "/userdata/x"),
        ("GET", "/view?filename=example.png&type=input"),
        ("GET", "/history"),
    ):
        assert target.ask(method, path, b"{}", Origin="null").status == 403


def test_cve_2025_67303_configuration_through_userdata(target: Target) -> None:
    """The Manager's configuration lay among the user's files; a changed one ran code."""
    before = target.kept()
    for name in (
        "../settings.json",
        "..%2Fwuerstchen.db",
        "../__manager/config.ini",
        "../../user/settings.json",
        "../default/../settings.json",
        "%2e%2e%2fsettings.json",
    ):
        path = f"/userdata/{name.replace('/', '%2F')}"
        for user in (None, "default", "__manager", "..", "../", "default/.."):
            headers = {"Comfy_User": user}
            assert target.get(path, **headers).status in (403, 404)
            assert target.ask("POST", path, b"{}", **headers).status in (400, 403, 404)
            assert target.ask("DELETE", path, **headers).status in (403, 404)
    assert target.kept() == before
    # Files of that name are nobody's configuration here.
    target.ask("POST", "/userdata/ComfyUI-Manager%2Fconfig.ini", b"[default]\nsecurity_level=weak")
    assert target.get("/settings/security_level").json is None


def test_cve_2026_22777_lines_into_the_configuration(target: Target) -> None:
    """A value with line ends became further lines of the configuration."""
    evil = "x\r\nsecurity_level = weak\r\n\u2028[other]\x00"
    assert target.post(f"/settings/{'Evil%0D%0AHidden'}", "changed").status == 200
    assert target.post("/settings/Evil", evil).status == 200
    assert target.post("/settings", {"Evil2\nHidden": evil}).status == 200
    kept = json.loads((target.data / "user" / "settings.json").read_text(encoding="utf-8"))
    assert kept == {
        "Hidden": SECRET,
        "Evil": evil,
        "Evil\r\nHidden": "changed",
        "Evil2\nHidden": evil,
    }


def test_packs_of_nodes_run_only_when_asked_for(tmp_path: Path) -> None:
    """ComfyUI_LLMVISION, ultralytics 8.3.41, …: what lies in custom_nodes ran at the next start."""
    marker = tmp_path / "ran"
    pack = tmp_path / "data" / "custom_nodes" / "evil"
    pack.mkdir(parents=True)
    (pack / "__init__.py").write_text(
        f"open({str(marker)!r}, 'w').close()\nNODE_CLASS_MAPPINGS = {{'Evil': object}}\n"
    )
    with serve(ServeSettings(host="127.0.0.1", port=0, data=tmp_path / "data")) as started:
        assert "Evil" not in started.get("/object_info").json
        assert not marker.exists()
        # Nor can one be put there from outside.
        answer = started.upload("x.py", b"", subfolder="../custom_nodes/evil", type="input")
        assert answer.status == 403
        assert not (pack / "x.py").exists()
