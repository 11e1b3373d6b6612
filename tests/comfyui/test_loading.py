"""ComfyUI starts with the repository in `custom_nodes`, and lists what is in it."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from comfyui_wuerstchen.nodes import NODE_CLASS_MAPPINGS

from ..paths import ROOT, WORKFLOWS
from .conftest import PACK, Comfy, Install, new_base

pytestmark = [pytest.mark.comfyui, pytest.mark.slow]

RUNNER = Path(__file__).with_name("import_runner.py")


def log_of_a_start(install: Install, base: Path, *arguments: str) -> set[str]:
    """The lines that ComfyUI writes until its nodes are loaded, without numbers and colours."""
    command = install.command(base, "--quick-test-for-ci", *arguments)
    done = subprocess.run(command, cwd=base, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    plain = re.sub(r"\x1b\[[\d;]*m", "", done.stdout + done.stderr)
    return {re.sub(r"\d+", "N", line).strip() for line in plain.splitlines()}


@pytest.mark.parametrize("folder", ["comfyui-wuerstchen", "Würstchen v2.0 (main)"])
def test_nothing_but_the_import_time_is_logged(
    install: Install, tmp_path: Path, folder: str
) -> None:
    base = new_base(tmp_path, folder)
    usual = log_of_a_start(install, base, "--disable-all-custom-nodes")
    (new,) = (
        log_of_a_start(install, base)
        - usual
        - {"", "[INFO]", "[INFO] Import times for custom nodes:", "Import times for custom nodes:"}
    )
    pattern = r"(\[INFO\] +)?N\.N seconds: " + re.escape(str(base / "custom_nodes" / folder))
    assert re.fullmatch(re.sub(r"\d+", "N", pattern), new), new


def test_comfyui_needs_no_package_more(install: Install) -> None:
    """Import and use with all packages hidden that ComfyUI's own requirements do not bring."""
    command = [install.python, str(RUNNER), str(install.checkout), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found["nodes"]) >= NODE_CLASS_MAPPINGS.keys()
    assert {"pytest", "ruff", "diffusers", "hypothesis"} <= set(found["hidden"])
    # What ComfyUI has not loaded yet takes time, and waits until a node needs it.
    assert found["imported"] == []
    assert found["shape"] == [1, 128, 128, 3]


async def test_the_nodes_are_there_with_their_help(comfyui: Comfy) -> None:
    nodes = await comfyui.get("/object_info")
    ours = {i: n for i, n in nodes.items() if n["python_module"] == f"custom_nodes.{PACK}"}
    assert ours.keys() >= NODE_CLASS_MAPPINGS.keys()
    words = (await comfyui.get("/i18n"))["en"]["nodeDefs"]
    for node_id, node in ours.items():
        assert node["display_name"] == words[node_id]["display_name"] != node_id
        async with comfyui.session.get(f"{comfyui.url}/extensions/{PACK}/docs/{node_id}.md") as got:
            assert got.status == 200 and "html" not in got.content_type


async def test_only_the_web_folder_is_served_as_scripts(comfyui: Comfy) -> None:
    scripts = [one for one in await comfyui.get("/extensions") if PACK in one]
    folder = ROOT / "web"
    assert sorted(scripts) == sorted(
        f"/extensions/{PACK}/{path.relative_to(folder).as_posix()}" for path in folder.rglob("*.js")
    )


async def test_templates_and_blueprints_are_offered(comfyui: Comfy) -> None:
    names = {path.stem for path in WORKFLOWS.glob("*.json")}
    assert set((await comfyui.get("/workflow_templates"))[PACK]) == names
    for name in names:
        workflow = await comfyui.get(f"/api/workflow_templates/{PACK}/{name}.json")
        assert workflow["nodes"]
        picture = f"{comfyui.url}/api/workflow_templates/{PACK}/{name}.jpg"
        async with comfyui.session.get(picture) as answer:
            assert answer.status == 200 and answer.content_type == "image/jpeg"
    blueprints = (await comfyui.get("/global_subgraphs")).values()
    ours = {one["name"] for one in blueprints if one["info"]["node_pack"].endswith(PACK)}
    assert ours == {path.stem for path in (ROOT / "subgraphs").glob("*.json")}
