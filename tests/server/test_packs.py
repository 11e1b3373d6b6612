"""What packs bring along besides nodes: scripts, help, texts, templates, blueprints."""

import io
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from comfyui_wuerstchen.host.folders import Folders
from comfyui_wuerstchen.host.graph_file import graph_from_json
from comfyui_wuerstchen.host.registry import default_nodes
from comfyui_wuerstchen.host.server.assemble import ServeSettings
from comfyui_wuerstchen.host.server.pack_contents import translations
from comfyui_wuerstchen.host.server.packs import Pack, own_pack
from comfyui_wuerstchen.host.server.templates import template_index
from comfyui_wuerstchen.nodes import NODE_CLASS_MAPPINGS

from ..examples import HOSTED
from ..paths import ROOT, WORKFLOWS
from .conftest import Running, serving

OURS = "comfyui-wuerstchen"
INIT = "NODE_CLASS_MAPPINGS = {}\nWEB_DIRECTORY = 'js'\n"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def theirs(settings: ServeSettings) -> Path:
    """The folder of another person's pack."""
    folder = settings.data / "custom_nodes" / "their pack"
    write(folder / "__init__.py", INIT)
    write(folder / "js" / "deep" / "näher.js", "export {}")
    write(folder / "js" / "style.css", "body {}")
    write(folder / "js" / "docs" / "Thing.md", "# Thing")
    write(folder / "js" / "docs" / "Thing" / "de.md", "# Ding")
    write(folder / "examples" / "first.json", '{"nodes": []}')
    write(folder / "examples" / "secret.txt", "not a template")
    write(folder / "subgraphs" / "Their blueprint.json", '{"their": "blueprint"}')
    write(folder / "locales" / "de" / "main.json", '{"g": {"yes": "ja"}}')
    return folder


@pytest.fixture
async def server(settings: ServeSettings, theirs: Path) -> AsyncIterator[Running]:
    async with serving(replace(settings, custom_nodes=True)) as running:
        yield running


async def head(server: Running, path: str) -> tuple[int, str]:
    """Status and content type of a GET."""
    async with server.session.get(f"{server.url}{path}") as answer:
        return answer.status, answer.headers.get("Content-Type", "")


async def test_every_script_is_listed_and_served(server: Running) -> None:
    listed = await server.get("/api/extensions")
    assert "/extensions/their%20pack/deep/n%C3%A4her.js" in listed
    own = [f"/extensions/{OURS}/{p.relative_to(ROOT / 'web')}" for p in ROOT.glob("web/**/*.js")]
    assert set(own) <= set(listed)
    for path in listed:
        assert await head(server, path) == (200, "text/javascript; charset=utf-8")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/extensions/their%20pack/style.css", (200, "text/css; charset=utf-8")),
        ("/extensions/their%20pack/none.js", (404, "application/json; charset=utf-8")),
        ("/extensions/no-pack/entry.js", (404, "application/json; charset=utf-8")),
        ("/extensions/core/widgetInputs.js", (200, "text/javascript; charset=utf-8")),
        (
            f"/extensions/{OURS}/docs/WuerstchenEmptyLatent.md",
            (200, "text/markdown; charset=utf-8"),
        ),
        # Nothing but the web folder is served of a pack.
        ("/extensions/their%20pack/..%2F__init__.py", (403, "application/json; charset=utf-8")),
        (f"/extensions/{OURS}/..%2Fpyproject.toml", (403, "application/json; charset=utf-8")),
    ],
)
async def test_files_of_packs(server: Running, path: str, expected: tuple[int, str]) -> None:
    assert await head(server, path) == expected


async def test_a_link_out_of_the_web_folder_is_not_followed(server: Running, theirs: Path) -> None:
    (theirs / "js" / "out.js").symlink_to(theirs / "__init__.py")
    assert (await head(server, "/extensions/their%20pack/out.js"))[0] == 403


async def test_help_in_another_language_or_else_the_page_that_is_there(server: Running) -> None:
    for locale, text in (("de", "# Ding"), ("fr", "# Thing")):
        path = f"/extensions/their%20pack/docs/Thing/{locale}.md"
        assert await server.ask("GET", path) == (200, text)


async def test_every_node_of_ours_has_help(server: Running) -> None:
    for node_id in NODE_CLASS_MAPPINGS:
        status, text = await server.ask("GET", f"/extensions/{OURS}/docs/{node_id}/en.md")
        assert status == 200
        assert text.startswith("# ")


async def test_a_stock_node_has_no_help_page(server: Running) -> None:
    assert await server.ask("GET", "/docs/SaveImage/en.md") == (204, "")


async def test_the_texts_of_all_packs_come_in_one_tree(server: Running) -> None:
    texts = await server.get("/api/i18n")
    assert texts["de"]["g"] == {"yes": "ja"}
    names = texts["en"]["nodeDefs"]
    assert names["WuerstchenStageADecode"]["display_name"] == "Würstchen Stage A Decode"


def test_texts_of_the_same_language_are_merged(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    write(one / "locales" / "en" / "nodeDefs.json", '{"A": {"x": 1, "y": 1}}')
    write(one / "locales" / "en" / "main.json", '{"g": "one", "settings": {"left": "out"}}')
    write(one / "locales" / "en" / "settings.json", '{"s": 1}')
    write(other / "locales" / "en" / "nodeDefs.json", '{"A": {"y": 2}, "B": {}}')
    write(other / "locales" / "en" / "commands.json", "not JSON")
    write(other / "locales" / "en" / "main.json", "[]")
    packs = [Pack("one", one), Pack("other", other), Pack("file", None)]
    assert translations(packs) == {
        "en": {
            "g": "one",
            "settings": {"s": 1},
            "nodeDefs": {"A": {"x": 1, "y": 2}, "B": {}},
        }
    }


async def test_templates_of_others_are_listed_by_their_pack(server: Running) -> None:
    assert await server.get("/api/workflow_templates") == {"their pack": ["first"]}
    assert await server.get("/api/workflow_templates/their%20pack/first.json") == {"nodes": []}


@pytest.mark.parametrize(
    "path",
    [
        "/api/workflow_templates/their%20pack/second.json",
        "/api/workflow_templates/their%20pack/first.jpg",
        "/api/workflow_templates/their%20pack/secret.txt",
        "/api/workflow_templates/their%20pack/..%2F__init__.py",
        "/api/workflow_templates/their%20pack/..%2Fsubgraphs%2FTheir%20blueprint.json",
        "/api/workflow_templates/no-pack/first.json",
        "/templates/none.json",
        "/templates/..%2Fpyproject.toml",
    ],
)
async def test_no_such_template(server: Running, path: str) -> None:
    status, answer = await server.ask("GET", path)
    assert status == 404
    assert str(ROOT) not in json.dumps(answer)


@pytest.mark.parametrize("index", ["index.json", "index.de.json", "index.zh-TW.json"])
async def test_our_workflows_are_the_canvas_own_templates(server: Running, index: str) -> None:
    (category,) = await server.get(f"/templates/{index}")
    assert (category["moduleName"], category["title"]) == ("default", "Würstchen")
    templates = {one["name"]: one for one in category["templates"]}
    assert templates.keys() == {path.stem for path in HOSTED}
    assert next(iter(templates)) == "text_to_image"
    assert templates["text_to_image"]["title"] == "Text to image"
    assert templates["text_to_image"]["description"].startswith("Stage C turns the prompt into")
    models = {name: templates[name]["models"] for name in ("text_to_image", "v1_text_to_image")}
    assert list(models.values()) == [["Würstchen v2"], ["Würstchen v1"]]


@pytest.mark.parametrize("path", HOSTED, ids=lambda path: path.stem)
async def test_each_template_opens_and_has_a_picture(server: Running, path: Path) -> None:
    expected = json.loads(path.read_text(encoding="utf-8"))
    for place in ("/templates", f"/api/workflow_templates/{OURS}"):
        assert await server.get(f"{place}/{path.stem}.json") == expected
    for place in (f"/templates/{path.stem}-1", f"/api/workflow_templates/{OURS}/{path.stem}"):
        async with server.session.get(f"{server.url}{place}.jpg") as answer:
            assert (answer.status, answer.content_type) == (200, "image/jpeg")
            picture = Image.open(io.BytesIO(await answer.read()))
    assert picture.width == picture.height >= 256
    assert path.with_suffix(".jpg").stat().st_size < 40_000


def test_a_workflow_is_only_offered_where_all_of_its_nodes_are(tmp_path: Path) -> None:
    def saved(name: str, kind: str, **more: Any) -> None:
        workflow = {"nodes": [{"id": 1, "type": kind}], **more}
        write(tmp_path / "examples" / f"{name}.json", json.dumps(workflow))

    def holding(kind: str) -> dict[str, Any]:
        return {"subgraphs": [{"id": "inside", "nodes": [{"id": 1, "type": kind}]}]}

    saved("known", "SaveImage")
    saved("unknown", "KSampler")
    saved("note", "MarkdownNote")
    saved("known inside", "inside", definitions=holding("SaveImage"))
    saved("unknown inside", "inside", definitions=holding("KSampler"))
    write(tmp_path / "examples" / "broken.json", "{")
    write(tmp_path / "examples" / "no workflow.json", "[]")
    (category,) = template_index(Pack("pack", tmp_path), default_nodes())
    assert [one["name"] for one in category["templates"]] == ["known", "known inside", "note"]


async def test_there_are_no_logos_and_no_replacements(server: Running) -> None:
    assert await server.get("/templates/index_logo.json") == {}
    assert await server.get("/api/node_replacements") == {}


async def test_blueprints_are_listed_without_and_given_with_their_data(server: Running) -> None:
    listed = await server.get("/api/global_subgraphs")
    by_name = {about["name"]: (key, about) for key, about in listed.items()}
    key, about = by_name["Their blueprint"]
    assert about == {
        "source": "custom_node",
        "name": "Their blueprint",
        "info": {"node_pack": "custom_nodes.their pack"},
    }
    whole = await server.get(f"/api/global_subgraphs/{key}")
    assert whole == {**about, "data": '{"their": "blueprint"}'}
    assert "Text to Image (Wuerstchen v2)" in by_name
    assert (await server.ask("GET", "/api/global_subgraphs/none"))[0] == 404


# Our own blueprint.


def blueprint() -> dict[str, Any]:
    (path,) = own_pack().subgraphs.glob("*.json")
    return json.loads(path.read_text(encoding="utf-8"))


def with_save_node(workflow: dict[str, Any]) -> dict[str, Any]:
    """The blueprint's node as a person would use it: its picture goes to Save Image."""
    save = {
        "id": 2,
        "type": "SaveImage",
        "pos": [500, 0],
        "size": [300, 300],
        "flags": {},
        "order": 1,
        "mode": 0,
        "inputs": [{"name": "images", "type": "IMAGE", "link": 1}],
        "outputs": [{"name": "images", "type": "IMAGE", "links": []}],
        "properties": {},
        "widgets_values": ["picture"],
    }
    workflow["nodes"].append(save)
    workflow["links"].append([1, 1, 0, 2, 0, "IMAGE"])
    return workflow


def test_the_blueprint_is_one_node_that_holds_a_subgraph() -> None:
    workflow = blueprint()
    (node,) = workflow["nodes"]
    (subgraph,) = workflow["definitions"]["subgraphs"]
    assert node["type"] == subgraph["id"]
    (path,) = own_pack().subgraphs.glob("*.json")
    assert node["title"] == subgraph["name"] == path.stem
    assert [one["name"] for one in node["inputs"]] == list(node["widgets_values_named"])
    inside = {one["type"] for one in subgraph["nodes"]}
    assert inside <= NODE_CLASS_MAPPINGS.keys()


async def test_the_blueprint_runs_to_the_same_picture_as_the_example(server: Running) -> None:
    nodes = default_nodes()
    example = json.loads((WORKFLOWS / "text_to_image.json").read_text(encoding="utf-8"))
    prompts = [
        graph_from_json(one, "test", nodes).prompt for one in (with_save_node(blueprint()), example)
    ]
    listener = await server.listen()
    folders: Folders = server.host.folders
    pictures = []
    for prompt in prompts:
        status, answer = await server.submit(prompt, client_id="tester")
        assert (status, answer["node_errors"]) == (200, {})
        told = await listener.until("executed", prompt_id=answer["prompt_id"])
        (file,) = told["output"]["images"]
        with Image.open(folders.output / file["subfolder"] / file["filename"]) as picture:
            pictures.append(picture.tobytes())
    assert pictures[0] == pictures[1]
