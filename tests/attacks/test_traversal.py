"""Ways out of the folders, in every route that takes a name."""

import json
from urllib.parse import quote

import pytest

from .conftest import SECRETS, Target

# From each folder that is served, to the data folder and beside it.
UPS = ("../", "../../", "../../../")
ABSOLUTE = ("/etc/passwd", "/proc/self/environ", "//etc/passwd", "file:///etc/passwd")
WINDOWS = (
    "C:/Windows/win.ini",
    "C:secret.txt",
    "C:\\Windows\\win.ini",
    "\\\\server\\share\\secret.txt",
    "\\etc\\passwd",
)
LINKS = tuple(f"link-{name}" for name in SECRETS) + tuple(f"way-out/{name}" for name in SECRETS)


def names(data: str) -> list[str]:
    """Names that lead out of a folder, as a program may send them."""
    found = [
        *ABSOLUTE,
        *WINDOWS,
        *LINKS,
        f"{data}/secret.txt",
        f"{data}/../secret.png",
        "~",
        "~root",
    ]
    for up in UPS:
        for name in (*SECRETS[:2], "etc/passwd", "user/settings.json", "user/wuerstchen.db"):
            found += [up + name, "sub/" + up + name, up.replace("../", "....//") + name]
        found += [up.replace("/", "\\") + "secret.txt", up, up + "secret.txt\0.png"]
    odd = ["", ".", "..", "../..", ".../...", "a\0b", "\0", "secret.txt\n", "./../secret.txt"]
    return [*found, *odd, "../input", "../input/../secret.txt"]


def spellings(name: str) -> set[str]:
    """A name as part of an address: plain, encoded, encoded twice, and in broken UTF-8."""
    encoded = quote(name, safe="")
    dots = encoded.replace(".", "%2e")
    plain = quote(name, safe="/\\:")
    overlong = dots.replace("%2e", "%c0%ae").replace("%2F", "%c0%af")
    return {plain, encoded, dots, dots.lower(), quote(encoded), quote(dots), overlong}


ROUTES = (
    "/userdata/{}",
    "/api/userdata/{}",
    "/api/userdata?dir={}&recurse=true",
    "/view?filename={}",
    "/view?type=input&filename={}",
    "/view?type=temp&filename={}&preview=webp",
    "/view?filename={}%20[input]",
    "/view?filename=secret.png&type=input&subfolder={}",
    "/view?filename=secret.png&channel=rgb&subfolder={}",
    "/view?filename=link-secret.txt&type={}",
    "/view_metadata/wuerstchen?filename={}",
    "/view_metadata/{}?filename=secret.safetensors",
    "/experiment/models/{}",
    "/experiment/models/preview/wuerstchen/0/{}",
    "/experiment/models/preview/wuerstchen/1/{}",
    "/experiment/models/preview/{}/0/secret.png",
    "/models/{}",
    "/settings/{}",
    "/object_info/{}",
    "/history/{}",
    "/jobs/{}",
    "/internal/files/{}",
    "/extensions/comfyui-wuerstchen/{}",
    "/extensions/{}/secret.txt",
    "/extensions/core/{}",
    "/docs/{}",
    "/templates/{}",
    "/workflow_templates/comfyui-wuerstchen/{}",
    "/workflow_templates/{}/secret.json",
    "/global_subgraphs/{}",
    "/assets/{}",
    "/{}",
    "/api/{}",
)


@pytest.mark.parametrize("route", ROUTES)
def test_reading(target: Target, route: str) -> None:
    # `Target.send` looks into each answer for what only files outside can tell.
    for name in names(str(target.data)):
        for spelling in spellings(name):
            path = route.format(spelling)
            if "\\" not in path and ":" not in path:
                assert target.get(path).status < 500, path
            else:
                assert target.get(quote(path, safe="/?&=%[]")).status < 500, path
    assert target.is_alive()


def test_the_secrets_are_where_the_attacks_look(target: Target) -> None:
    """Otherwise the test above could not fail."""
    for place in ("input", "output", "user/temp", "user/default", "models"):
        folder = target.data / place
        assert any((folder / f"{up}secret.png").is_file() for up in UPS)
        assert (folder / "link-secret.png").is_file()
        assert (folder / "way-out" / "secret.png").is_file()


def test_uploads_stay_inside(target: Target) -> None:
    before = target.kept()
    for name in names(str(target.data)):
        if "\0" in name or "\n" in name:
            continue  # below, byte for byte
        for fields in ({"type": "temp"}, {"overwrite": "true"}):
            assert target.upload(name.replace("\\", "\\\\"), b"evil", **fields).status < 500, name
            assert target.upload("x.png", b"evil", subfolder=name, **fields).status < 500, name
    assert target.kept() == before
    for place in ("input", "user/temp"):
        assert (target.data / place / "link-secret.png").is_symlink()


@pytest.mark.parametrize(
    "line",
    [
        'form-data; name="image"; filename="../secret.png"',
        'form-data; name="image"; filename="a\0../../secret.png"',
        'form-data; name="image"; filename="..%2f..%2fsecret.png"',
        "form-data; name=\"image\"; filename*=UTF-8''..%2f..%2fsecret.png",
        "form-data; name=\"image\"; filename*=UTF-8''%00..%2fsecret.png",
        "form-data; name=\"image\"; filename*=UTF-8''%0d%0aX-Evil:%201.png",
        'form-data; name="image"; filename="/etc/cron.d/evil"',
        'form-data; name="image"; filename=".."',
        'form-data; name="image"; filename="."',
        'form-data; name="image"; filename=""',
        'form-data; name="image"; filename=".htaccess"',
        'form-data; name="image"; filename=".wuerstchen.lock"',
        'form-data; name="image"; filename=".partial-x"',
        'form-data; name="image"',
        'form-data; filename="../secret.png"',
        'attachment; name="image"; filename="../secret.png"',
        "form-data; name=image; filename=\xff",
        "",
    ],
)
def test_odd_names_of_uploads(target: Target, line: str) -> None:
    before = target.kept()
    answer = target.post_form(
        "/upload/image", f"Content-Disposition: {line}", b"evil", {"type": "input"}
    )
    assert answer.status < 500
    if answer.status == 200:
        kept = target.data / "input" / answer.json["subfolder"] / answer.json["name"]
        assert kept.read_bytes() == b"evil"
        assert "X-Evil" not in answer.headers
    assert target.kept() == before


def test_masks_of_files_elsewhere(target: Target) -> None:
    before = target.kept()
    for name in names(str(target.data)):
        for reference in (
            {"filename": name},
            {"filename": name, "type": "input"},
            {"filename": "secret.png", "subfolder": name, "type": "input"},
            {"filename": f"{name} [temp]"},
            {"filename": "secret.png", "type": name},
        ):
            answer = target.upload(
                "m.png", b"mask", "/upload/mask", original_ref=json.dumps(reference)
            )
            assert answer.status in (400, 403, 404), reference
    assert target.kept() == before


def test_user_files_stay_inside(target: Target) -> None:
    before = target.kept()
    target.ask("POST", "/userdata/kept.json", b"mine")
    for name in names(str(target.data)):
        for spelling in (quote(name, safe=""), quote(name, safe="").replace(".", "%2e")):
            path = f"/api/userdata/{spelling}"
            target.ask("POST", path, b"evil")
            target.ask("POST", f"/userdata/kept.json/move/{spelling}", b"")
            if target.ask("POST", f"{path}/move/stolen.json", b"").status == 200:
                target.get("/userdata/stolen.json")
            target.ask("DELETE", path)
    assert target.kept() == before
    for name in SECRETS:
        assert (target.data / "user" / "default" / f"link-{name}").is_symlink()
    assert target.is_alive()


def test_user_files_through_links(target: Target) -> None:
    before = target.kept()
    for name in ("link-secret.json", "way-out/secret.json", "way-out/new.json"):
        path = f"/userdata/{quote(name, safe='')}"
        assert target.get(path).status == 403
        assert target.ask("POST", path, b"evil").status == 403
        assert target.ask("DELETE", path).status == 403
        assert target.ask("POST", f"{path}/move/mine.json", b"").status == 403
    listed = target.get("/userdata?dir=.&recurse=true").json
    assert not [name for name in listed if "link" in name or "way-out" in name]
    assert target.kept() == before
