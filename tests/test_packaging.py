"""What is published, and in which languages it speaks."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from comfyui_wuerstchen.nodes import NODE_CLASS_MAPPINGS

from .paths import ROOT
from .test_contract import EVERYWHERE, IN_COMFYUI, inputs_of, landed, own_infos

try:
    import tomllib
except ImportError:  # Python 3.10, where pytest brings the same under its older name
    import tomli as tomllib

LOCALES = ROOT / "locales"
LANGUAGES = ("de", "fr", "ja", "zh")
FILES = ("commands.json", "main.json", "nodeDefs.json")
QUOTED = re.compile("„(.+?)“|“(.+?)”|「(.+?)」|« (.+?) »")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

# As ComfyUI loads a pack from a folder of any name; prints what came of it.
LOAD = """
import importlib.util, json, sys
from pathlib import Path
folder = Path(sys.argv[1])
name = str(folder).replace(".", "_x_")
spec = importlib.util.spec_from_file_location(name, folder / "__init__.py")
pack = importlib.util.module_from_spec(spec)
sys.modules[name] = pack
spec.loader.exec_module(pack)
loader = pack.NODE_CLASS_MAPPINGS["WuerstchenLoadPipeline"]
print(json.dumps({
    "nodes": sorted(pack.NODE_CLASS_MAPPINGS),
    "folders": loader.INPUT_TYPES()["required"]["folder"][1]["options"],
    "web": (folder / pack.WEB_DIRECTORY).is_dir(),
    "host": [module for module in sys.modules if module.startswith(f"{name}.host")],
}))
"""


def texts(language: str, file: str) -> dict[str, Any]:
    return json.loads((LOCALES / language / file).read_text(encoding="utf-8"))


def leaves(tree: dict[str, Any], *above: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every text with its path."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, *above, key)
        else:
            yield (*above, key), value


def published() -> list[str]:
    """What the registry would get: what git keeps, less .comfyignore."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs git and a checkout: a pack is published from one")

    def git(*arguments: str, given: str = "") -> list[str]:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, input=given, capture_output=True, text=True
        )
        return done.stdout.splitlines()

    kept = [name for name in git("ls-files", "-co", "--exclude-standard") if (ROOT / name).exists()]
    ignore = f"core.excludesFile={ROOT / '.comfyignore'}"
    given = "\n".join(kept)
    left_out = git("-c", ignore, "check-ignore", "--no-index", "--stdin", given=given)
    return sorted(set(kept) - set(left_out))


def english(info: dict[str, Any]) -> dict[str, Any]:
    """What the English locale has to say of a node that /object_info describes."""
    tooltips = info.get("output_tooltips") or [None] * len(info["output"])
    outputs = zip(info["output_name"], tooltips, strict=True)
    return {
        "display_name": info["display_name"],
        "description": info["description"],
        "inputs": {
            spec.name: {"name": spec.name, "tooltip": spec.options["tooltip"]}
            for spec in inputs_of(info)
        },
        "outputs": {
            str(index): {"name": name} | ({"tooltip": tooltip} if tooltip else {})
            for index, (name, tooltip) in enumerate(outputs)
        },
    }


def test_english_says_what_the_nodes_declare() -> None:
    said, infos, groups = texts("en", "nodeDefs.json"), own_infos(), landed()
    assert said.keys() == groups[EVERYWHERE].keys() | groups[IN_COMFYUI].keys()
    for node_id, info in infos.items():
        assert said[node_id] == english(info), node_id


def test_english_names_the_commands_of_the_canvas() -> None:
    script = (ROOT / "web" / "wuerstchen.js").read_text(encoding="utf-8")
    commands = texts("en", "commands.json")
    ids = re.findall(r'"(Wuerstchen\.\w+)"', script)
    assert {command.replace(".", "_") for command in ids} == commands.keys()
    labels = {command["label"] for command in commands.values()}
    assert all(f'"{label}"' in script for label in labels)
    assert texts("en", "main.json")["menuLabels"] == {label: label for label in labels}


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("language", LANGUAGES)
def test_each_language_says_all_that_english_says(language: str, file: str) -> None:
    english = dict(leaves(texts("en", file)))
    translated = dict(leaves(texts(language, file)))
    assert translated.keys() == english.keys()
    assert all(text.strip() == text != "" for text in translated.values())
    sentences = [path for path, text in english.items() if text.count(" ") > 2]
    assert [path for path in sentences if translated[path] == english[path]] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_texts_call_nodes_by_the_names_they_have(language: str) -> None:
    nodes = texts(language, "nodeDefs.json")
    names = {node["display_name"] for node in nodes.values()}
    assert len(names) == len(nodes)
    quoted = {"".join(found) for _, text in leaves(nodes) for found in QUOTED.findall(text)}
    assert quoted and quoted <= names


def test_nothing_lies_beside_the_languages() -> None:
    found = {path.relative_to(LOCALES).as_posix() for path in LOCALES.rglob("*.*")}
    assert found == {f"{language}/{file}" for language in ("en", *LANGUAGES) for file in FILES}


@pytest.mark.parametrize("language", ("en", *LANGUAGES))
def test_the_canvas_can_read_the_texts(language: str) -> None:
    """It splits keys at dots, and reads all but tooltips as templates with these characters."""
    for file in FILES:
        for path, text in leaves(texts(language, file)):
            assert not any("." in key for key in path), path
            assert path[-1] == "tooltip" or not set("@${}|%\\") & set(text), (path, text)


def test_the_registry_can_read_pyproject() -> None:
    project, comfy = PYPROJECT["project"], PYPROJECT["tool"]["comfy"]
    assert re.fullmatch(r"[a-z](?:[._-]?[a-z0-9])*", project["name"]) and len(project["name"]) < 100
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["version"])
    assert comfy["PublisherId"] and comfy["DisplayName"]
    assert re.fullmatch(r">=\d+\.\d+\.\d+", comfy["requires-comfyui"])
    with Image.open(ROOT / comfy["Icon"]) as icon:
        assert icon.width == icon.height <= 400


def test_nothing_is_installed_over_what_comfyui_brings() -> None:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not line.startswith("#")] == []
    dependencies = PYPROJECT["project"]["dependencies"]
    assert [name for name in dependencies if not name.isalnum()] == []  # names, without versions


def test_an_installed_package_has_all_of_the_source() -> None:
    setuptools = PYPROJECT["tool"]["setuptools"]
    rooms = {
        Path(name).parent
        for name in published()
        if name.endswith(".py") and not name.startswith((".", "docs/"))
    }
    packages = {".".join(("comfyui_wuerstchen", *room.parts)) for room in rooms}
    assert set(setuptools["packages"]) == packages


def test_an_installed_package_has_all_of_the_data() -> None:
    patterns = PYPROJECT["tool"]["setuptools"]["package-data"]["comfyui_wuerstchen"]
    packed = {path.relative_to(ROOT).as_posix() for one in patterns for path in ROOT.glob(one)}
    folders = ("example_workflows/", "input/", "locales/", "models/", "subgraphs/", "web/")
    assert [name for name in published() if name.startswith(folders) and name not in packed] == []


def test_what_is_published_loads(tmp_path: Path) -> None:
    pack = tmp_path / "custom_nodes" / "any name.v2"
    for name in published():
        (pack / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, pack / name)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LOAD, str(pack)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    came = json.loads(done.stdout)
    assert came["nodes"] == sorted(NODE_CLASS_MAPPINGS)
    assert any("wuerstchen-demo" in folder for folder in came["folders"])
    assert came["web"]
    assert came["host"] == []  # it is only for life without ComfyUI


def test_what_is_published_travels_well() -> None:
    """git quotes other names, and the registry's tool would then miss the file."""
    names = published()
    assert [name for name in names if not re.fullmatch(r"[\w ().+/-]+", name, re.ASCII)] == []
    assert not any(name.startswith(("tests/", "benchmarks/", ".ci/")) for name in names)
    assert sum((ROOT / name).stat().st_size for name in names) < 32 * 2**20


def test_each_example_has_a_picture_and_a_name_for_links() -> None:
    examples = list((ROOT / "example_workflows").glob("*.json"))
    assert examples
    for example in examples:
        assert re.fullmatch(r"[a-zA-Z0-9_.-]+", example.name)
        with Image.open(example.with_suffix(".jpg")) as picture:
            assert picture.width == picture.height <= 512
