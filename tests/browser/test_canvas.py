"""What a person does on the canvas, in a real browser against a real server."""

import io
import json

import numpy as np
import torch
from PIL import Image

from comfyui_wuerstchen.wuerstchen_core.training.demo.checker import Reading, check

from ..examples import HOSTED
from ..paths import ROOT
from ..server.conftest import Running
from .canvas import Canvas

PROGRESS = """
(() => {
  window.seen = {progress: {}, previews: {}};
  const look = () => {
    for (const node of app.graph.nodes) {
      if (node.progress > 0 && node.progress < 1) seen.progress[node.type] = node.progress;
      if (node.type !== 'SaveImage' && node.imgs?.length) {
        seen.previews[node.type] = node.imgs[0].src;
      }
    }
    window.seen.timer = requestAnimationFrame(look);
  };
  look();
})()
"""


def pixels(png: bytes) -> torch.Tensor:
    """1×3×H×W in [0, 1]."""
    levels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), dtype=np.float32)
    return torch.from_numpy(levels / 255).movedim(-1, 0)[None]


async def test_from_the_deep_link_to_the_right_picture(canvas: Canvas) -> None:
    await canvas.open()
    kinds = await canvas.js("app.graph.nodes.map(n => n.type).sort()")
    assert kinds == sorted(
        [
            "MarkdownNote",
            "SaveImage",
            "WuerstchenEmptyLatent",
            "WuerstchenLoadPipeline",
            "WuerstchenStageADecode",
            "WuerstchenStageBSampler",
            "WuerstchenStageCSampler",
            "WuerstchenTextEncode",
            "WuerstchenTextEncode",
        ]
    )
    await canvas.js(PROGRESS)
    await canvas.run()
    await canvas.until("Object.keys(seen.previews).length === 1")
    await canvas.screenshot("run-with-preview")
    picture = await canvas.picture()
    seen = await canvas.js("seen")
    samplers = {"WuerstchenStageCSampler", "WuerstchenStageBSampler"}
    assert seen["progress"].keys() >= samplers
    assert seen["previews"].keys() == samplers
    assert all(source.startswith("blob:") for source in seen["previews"].values())
    await canvas.screenshot("finished")
    assert check(pixels(picture)) == [Reading("blue", "star", "red", "large", "top left")]


async def test_a_wrong_value_is_shown_on_its_node(canvas: Canvas, server: Running) -> None:
    await canvas.open()
    steps = canvas.widget("WuerstchenStageCSampler", "steps")
    await canvas.js(f"{steps}.value = 0")
    await canvas.run()
    await canvas.until(f"{canvas.node('WuerstchenStageCSampler')}.has_errors === true")
    await canvas.page.get_by_text("The value 0 for Stage C's steps is below").wait_for()
    await canvas.screenshot("wrong-value")
    assert (await server.get("/jobs"))["jobs"] == []
    canvas.forgive("/api/prompt", "Prompt execution failed")

    await canvas.js(f"{steps}.value = 2")
    await canvas.run()
    await canvas.picture()
    assert not await canvas.js(f"{canvas.node('WuerstchenStageCSampler')}.has_errors")


async def test_a_node_from_the_search_is_dragged_and_wired(canvas: Canvas) -> None:
    await canvas.open("reconstruct")
    await canvas.add_node("vqgan encode", (600, 850))
    kind = "WuerstchenStageAEncode"
    await canvas.until(f"{canvas.node(kind)} !== undefined")

    before = await canvas.js(f"[...{canvas.node(kind)}.pos]")
    title = await canvas.at(kind, 60, -12)
    await canvas.drag(title, (title[0] - 80, title[1] - 40))
    after = await canvas.js(f"[...{canvas.node(kind)}.pos]")
    scale = await canvas.js("app.canvas.ds.scale")
    assert [round((b - a) * scale) for a, b in zip(before, after, strict=True)] == [-80, -40]

    await canvas.wire("LoadImage", "IMAGE", kind, "pixels")
    await canvas.wire("WuerstchenLoadPipeline", "stage_a", kind, "stage_a")
    await canvas.wire(kind, "stage_b_latent", "WuerstchenStageADecode", "samples")
    await canvas.screenshot("wired")
    await canvas.run()
    rebuilt = await canvas.picture()  # by Stage A alone, which loses little
    original = pixels((ROOT / "input" / "example.png").read_bytes())
    assert (pixels(rebuilt) - original).abs().mean() < 0.04


async def test_stages_are_optimized_between_loader_and_samplers(canvas: Canvas) -> None:
    await canvas.open()
    await canvas.add_node("low vram", (600, 850))
    kind, loader = "WuerstchenOptimize", "WuerstchenLoadPipeline"
    await canvas.until(f"{canvas.node(kind)} !== undefined")
    for stage, sampler in (
        ("stage_c", "WuerstchenStageCSampler"),
        ("stage_b", "WuerstchenStageBSampler"),
    ):
        await canvas.wire(loader, stage, kind, stage)
        await canvas.wire(kind, stage, sampler, stage)
    await canvas.js(f"{canvas.widget(kind, 'storage')}.value = 'int8'")
    await canvas.js(f"{canvas.widget(kind, 'guidance_end')}.value = 0.8")
    await canvas.screenshot("optimized")
    await canvas.run()
    picture = await canvas.picture()
    graph = json.loads(Image.open(io.BytesIO(picture)).text["prompt"])
    (node,) = (one for one in graph.values() if one["class_type"] == kind)
    assert [node["inputs"][name] for name in ("storage", "guidance_end")] == ["int8", 0.8]
    assert check(pixels(picture)) == [Reading("blue", "star", "red", "large", "top left")]


async def test_a_run_is_cancelled(canvas: Canvas, server: Running) -> None:
    await canvas.open()
    await canvas.js(f"{canvas.widget('WuerstchenStageCSampler', 'steps')}.value = 1000")
    await canvas.run()
    await canvas.until(f"{canvas.node('WuerstchenStageCSampler')}.progress > 0")
    await canvas.page.get_by_label("Cancel current run").first.click()
    await canvas.until("!app.graph.nodes.some(n => n.progress > 0)")
    (job,) = (await server.get("/jobs"))["jobs"]
    assert job["status"] == "cancelled" and job["outputs_count"] == 0


async def test_a_workflow_is_saved_and_opened_again(canvas: Canvas, server: Running) -> None:
    await canvas.open()
    await canvas.js(f"{canvas.widget('WuerstchenStageCSampler', 'seed')}.value = 4711")
    await canvas.page.keyboard.press("Control+s")
    name = canvas.page.get_by_role("dialog").get_by_role("textbox")
    await name.fill("my graph")
    await name.press("Enter")
    await canvas.page.get_by_role("dialog").wait_for(state="detached")
    (saved,) = await server.get("/api/userdata?dir=workflows&recurse=true&split=false")
    assert saved == "my graph.json"

    await canvas.page.evaluate("localStorage.clear(); sessionStorage.clear()")
    await canvas.open(None)
    await canvas.page.keyboard.press("Escape")  # the templates that an empty canvas offers
    await canvas.test_id("workflows-tab-button").click()
    await canvas.test_id("workflows-sidebar").get_by_text("my graph").click()
    await canvas.until(f"{canvas.node('WuerstchenStageCSampler')} !== undefined")
    assert await canvas.js(f"{canvas.widget('WuerstchenStageCSampler', 'seed')}.value") == 4711


async def test_a_saved_picture_brings_its_graph_and_makes_itself_again(canvas: Canvas) -> None:
    await canvas.open()
    await canvas.js(f"{canvas.widget('WuerstchenStageCSampler', 'seed')}.value = 3")
    await canvas.js(f"{canvas.widget('WuerstchenStageCSampler', 'steps')}.value = 8")
    await canvas.run()
    first = await canvas.picture()
    await canvas.js("app.graph.clear()")
    await canvas.drop_file("picture.png", "image/png", first)
    await canvas.until(f"{canvas.node('WuerstchenStageCSampler')} !== undefined")
    assert await canvas.js(f"{canvas.widget('WuerstchenStageCSampler', 'seed')}.value") == 3
    # Something else in between, so that the picture is made and not only remembered.
    await canvas.page.request.post(f"{canvas.url}/api/free", data={"free_memory": True})
    await canvas.js(f"{canvas.widget('SaveImage', 'filename_prefix')}.value = 'again'")
    await canvas.run()
    await canvas.until(f"{canvas.node('SaveImage')}?.imgs?.[0]?.src.includes('again')")
    assert torch.equal(pixels(await canvas.picture()), pixels(first))


async def test_the_panels_around_the_canvas(canvas: Canvas, server: Running) -> None:
    await canvas.open()
    await canvas.js(f"{canvas.widget('WuerstchenStageCSampler', 'steps')}.value = 4")
    await canvas.run()
    await canvas.picture()

    await canvas.test_id("assets-tab-button").click()
    thumbnail = canvas.page.locator("img[src*='text_to_image_00001_']").first
    await thumbnail.wait_for()
    await thumbnail.evaluate("e => e.decode()")  # waits for the picture; a broken one is an error

    await canvas.test_id("model-library-tab-button").click()
    await canvas.page.get_by_text("wuerstchen", exact=True).first.click()
    demo = canvas.test_id("tree-node-root/wuerstchen/wuerstchen-demo")
    await demo.get_by_text("7", exact=True).wait_for()  # its parts and a LoRA
    await canvas.screenshot("model-library")

    await canvas.page.get_by_label("Toggle Bottom Panel").click()
    await canvas.page.get_by_text("completed in").wait_for()
    await canvas.screenshot("log-panel")
    await canvas.page.get_by_label("Toggle Bottom Panel").click()

    await canvas.page.get_by_label("Templates").click()
    cards = canvas.page.locator("[data-testid^='template-workflow-']")
    await cards.nth(len(HOSTED) - 1).wait_for()
    assert await cards.count() == len(HOSTED)
    for card in await cards.all():  # a picture is loaded when its card comes into view
        await card.scroll_into_view_if_needed()
        await card.locator("img").first.evaluate("e => e.decode()")
    await canvas.screenshot("templates")


async def test_the_help_of_a_node_is_shown(canvas: Canvas) -> None:
    await canvas.open()
    x, y = await canvas.at("WuerstchenStageCSampler", 60, -12)
    await canvas.page.mouse.click(x, y)
    await canvas.test_id("info-button").click()
    await canvas.page.get_by_role("heading", name="Stage C").first.wait_for()
    await canvas.screenshot("help")


async def test_a_finished_job_gives_its_workflow_back(canvas: Canvas) -> None:
    await canvas.open()
    await canvas.js(f"{canvas.widget('WuerstchenStageCSampler', 'steps')}.value = 3")
    await canvas.run()
    await canvas.picture()
    await canvas.js("app.graph.clear()")
    await canvas.test_id("assets-tab-button").click()
    thumbnail = canvas.page.locator("img[src*='text_to_image_00001_']").first
    await thumbnail.click(button="right")
    await canvas.page.get_by_role("menuitem", name="Open as workflow in new tab").click()
    await canvas.until(f"{canvas.node('WuerstchenStageCSampler')} !== undefined")
    assert await canvas.js(f"{canvas.widget('WuerstchenStageCSampler', 'steps')}.value") == 3


async def test_muted_nodes_and_single_outputs(canvas: Canvas, server: Running) -> None:
    await canvas.open("reconstruct")
    await canvas.add_node("preview image", (600, 850))
    await canvas.until(f"{canvas.node('PreviewImage')} !== undefined")
    await canvas.wire("LoadImage", "IMAGE", "PreviewImage", "images")
    await canvas.js(f"{canvas.node('SaveImage')}.mode = 2")  # muted
    await canvas.run()
    await canvas.picture("PreviewImage")
    (job,) = (await server.get("/jobs"))["jobs"]
    assert job["preview_output"]["type"] == "temp" and job["outputs_count"] == 1

    await canvas.js(f"{canvas.node('SaveImage')}.mode = 0")
    await canvas.js(f"{canvas.node('SaveImage')}.title = 'kept'")
    x, y = await canvas.at("SaveImage", 60, -12)
    await canvas.page.mouse.click(x, y)
    await canvas.js("app.extensionManager.command.execute('Comfy.QueueSelectedOutputNodes')")
    await canvas.picture("SaveImage")
    newest = (await server.get("/jobs"))["jobs"][0]
    whole = await server.get(f"/jobs/{newest['id']}")
    save_id = await canvas.js(f"String({canvas.node('SaveImage')}.id)")
    assert whole["outputs"].keys() == {save_id}


async def test_a_bypassed_sampler_lets_its_latent_through(canvas: Canvas, server: Running) -> None:
    await canvas.open("image_variation")
    x, y = await canvas.at("WuerstchenStageCSampler", 60, -12)
    await canvas.page.mouse.click(x, y)
    await canvas.page.keyboard.press("Control+b")
    await canvas.until(f"{canvas.node('WuerstchenStageCSampler')}.mode === 4")
    await canvas.run()
    await canvas.picture()  # the encoded picture itself, rebuilt
    (job,) = (await server.get("/jobs"))["jobs"]
    whole = await server.get(f"/jobs/{job['id']}")
    kinds = {node["class_type"] for node in whole["workflow"]["prompt"].values()}
    assert "WuerstchenStageBSampler" in kinds and "WuerstchenStageCSampler" not in kinds


async def test_a_picture_is_uploaded_masked_and_used(canvas: Canvas, server: Running) -> None:
    await canvas.open("reconstruct")
    buffer = io.BytesIO()
    Image.new("RGB", (256, 256), (250, 220, 40)).save(buffer, format="PNG")
    async with canvas.page.expect_file_chooser() as chooser:
        x, y = await canvas.at("LoadImage", 100, 70)
        await canvas.page.mouse.click(x, y)
    await (await chooser.value).set_files(
        {"name": "mine.png", "mimeType": "image/png", "buffer": buffer.getvalue()}
    )
    await canvas.until(f"{canvas.widget('LoadImage', 'image')}.value === 'mine.png'")
    await canvas.until(f"{canvas.node('LoadImage')}.imgs?.[0]?.src.includes('mine.png')")

    x, y = await canvas.at("LoadImage", 60, -12)
    await canvas.page.mouse.click(x, y)
    await canvas.js("app.extensionManager.command.execute('Comfy.MaskEditor.OpenMaskEditor')")
    await canvas.page.get_by_role("button", name="Save").wait_for()
    await canvas.screenshot("mask-editor")
    await canvas.page.get_by_role("button", name="Save").click()
    await canvas.until(f"{canvas.widget('LoadImage', 'image')}.value.includes('clipspace')")

    await canvas.run()
    rebuilt = pixels(await canvas.picture())
    wanted = torch.tensor([250, 220, 40]).view(1, 3, 1, 1) / 255
    assert (rebuilt.mean(dim=(2, 3), keepdim=True) - wanted).abs().max() < 0.1


async def test_groups_and_subgraphs_run(canvas: Canvas) -> None:
    await canvas.open()
    await canvas.js(f"{canvas.widget('WuerstchenStageCSampler', 'steps')}.value = 3")
    await canvas.js(
        "(() => { const {canvas, graph} = app; canvas.selectItems(graph.nodes.filter("
        "n => ['WuerstchenStageBSampler', 'WuerstchenStageADecode'].includes(n.type))) })()"
    )
    await canvas.js("app.extensionManager.command.execute('Comfy.Graph.GroupSelectedNodes')")
    await canvas.js("app.extensionManager.command.execute('Comfy.Graph.ConvertToSubgraph')")
    await canvas.until("app.graph.nodes.some(n => n.isSubgraphNode?.())")
    assert await canvas.js(f"{canvas.node('WuerstchenStageBSampler')} === undefined")
    await canvas.run()
    await canvas.picture()
    await canvas.screenshot("subgraph")


async def test_the_vue_nodes_run_too(canvas: Canvas, server: Running) -> None:
    await server.ask("POST", "/api/settings", json={"Comfy.VueNodes.Enabled": True})
    await canvas.open()
    await canvas.page.locator("[data-node-id]").first.wait_for()
    await canvas.run()
    picture = await canvas.page.wait_for_selector("[data-node-id='8'] img", timeout=60_000)
    assert picture is not None
    await canvas.screenshot("vue-nodes")
