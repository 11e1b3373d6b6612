"""What the extension shows on the canvas, on nodes that LiteGraph draws and on nodes in HTML."""

import json
from typing import Any

import pytest

from comfyui_wuerstchen.nodes import NODE_CLASS_MAPPINGS

from ..browser.canvas import Canvas

SIZE, STAGE_C = "WuerstchenEmptyLatent", "WuerstchenStageCSampler"
SOCKETS = [
    f"WUERSTCHEN_{part}"
    for part in ("STAGE_C", "STAGE_B", "STAGE_A", "TEXT_ENCODER", "IMAGE_ENCODER")
] + [f"WUERSTCHEN_V1_{part}" for part in ("STAGE_C", "STAGE_B", "IMAGE_ENCODER")]

SMALL = "256×256 → canvas 256×256 → Stage C 6×6 → Stage B 64×64"
LARGE = "1000×1400 → canvas 1024×1408 → Stage C 24×33 → Stage B 256×352"
WIDE = "1000×256 → canvas 1024×256 → Stage C 24×6 → Stage B 256×64"

# By socket: the colours of LiteGraph's slots and links, and that of nodes in HTML.
COLOURS = f"""{json.dumps(SOCKETS)}.map(socket => [
  app.canvas.default_connection_color_byType[socket],
  LGraphCanvas.link_type_colors[socket],
  getComputedStyle(document.documentElement).getPropertyValue(`--color-datatype-${{socket}}`),
])"""


async def settings(canvas: Canvas, values: dict[str, Any]) -> None:
    answer = await canvas.page.request.post(
        f"{canvas.url}/api/settings",
        data=json.dumps(values),
        headers={"Content-Type": "application/json"},
    )
    assert answer.ok


@pytest.fixture(params=[False, True], ids=["litegraph", "html"])
async def drawn(request: pytest.FixtureRequest, canvas: Canvas) -> Canvas:
    """The text-to-image graph, with nodes of one kind or the other."""
    await settings(canvas, {"Comfy.VueNodes.Enabled": request.param})
    await canvas.open()
    assert await canvas.js("LiteGraph.vueNodesMode") is request.param
    return canvas


async def shows(canvas: Canvas, view: str, *texts: str) -> None:
    """Waits until the views of this kind on the page say exactly this."""
    views = f"[...document.querySelectorAll('.wuerstchen-{view}')].map(e => e.textContent.trim())"
    await canvas.until(f"{views}.join('|') === {json.dumps('|'.join(texts))}")


async def set_widget(canvas: Canvas, kind: str, name: str, value: Any) -> None:
    """As the canvas does it after a person's edit."""
    widget = canvas.widget(kind, name)
    await canvas.js(f"(w => {{ w.value = a; w.callback?.(a); }})({widget})", value)


async def one_wider(canvas: Canvas) -> None:
    """A person's click on the widget's arrow or plus."""
    if await canvas.js("LiteGraph.vueNodesMode"):
        row = canvas.page.locator("[data-widget-name='width']")
        await row.get_by_test_id("increment").click()
    else:
        right, y = await canvas.js(
            f"[{canvas.node(SIZE)}.size[0], {canvas.widget(SIZE, 'width')}.y]"
        )
        await canvas.page.mouse.click(*await canvas.at(SIZE, right - 20, y + 10))


async def change(canvas: Canvas, script: str) -> None:
    """One step of the canvas's history."""
    await canvas.js(
        f"(() => {{ app.canvas.emitBeforeChange(); {script}; app.canvas.emitAfterChange(); }})()"
    )


async def command(canvas: Canvas, name: str) -> None:
    await canvas.js("app.extensionManager.command.execute(a)", name)


async def test_the_size_line_follows_the_size(drawn: Canvas) -> None:
    await shows(drawn, "sizes", SMALL)
    width, height = drawn.widget(SIZE, "width"), drawn.widget(SIZE, "height")
    await change(drawn, f"{width}.value = 1000; {height}.value = 1400")
    await shows(drawn, "sizes", LARGE)
    await drawn.screenshot(f"views-{await drawn.js('LiteGraph.vueNodesMode')}")
    await command(drawn, "Comfy.Undo")
    await shows(drawn, "sizes", SMALL)
    await command(drawn, "Comfy.Redo")
    await shows(drawn, "sizes", LARGE)
    await one_wider(drawn)
    await shows(drawn, "sizes", LARGE.replace("1000", "1001"))
    await set_widget(drawn, SIZE, "width", 1000)
    await set_widget(drawn, SIZE, "height", 63)
    await shows(drawn, "sizes", "Each side may be 64 to 4096 px.")
    await set_widget(drawn, SIZE, "height", 256)

    # What comes through wires: known from a primitive, unknown from other nodes.
    await change(
        drawn,
        f"""const primitive = LiteGraph.createNode("PrimitiveInt");
        app.graph.add(primitive);
        primitive.widgets[0].value = 1400;
        primitive.connect(0, {drawn.node(SIZE)}, "height")""",
    )
    await shows(drawn, "sizes", LARGE)
    await change(drawn, f"{drawn.node('PrimitiveInt')}.widgets[0].value = 256")
    await shows(drawn, "sizes", WIDE)
    await change(drawn, f"{drawn.node('PrimitiveInt')}.type = 'Arithmetic'")
    await shows(drawn, "sizes", "The size comes through a wire.")
    await change(drawn, f"app.graph.remove({drawn.node('Arithmetic')})")
    await shows(drawn, "sizes", WIDE)
    await change(drawn, f"app.graph.remove({drawn.node(SIZE)})")
    await shows(drawn, "sizes")


async def test_the_plot_follows_the_settings(drawn: Canvas) -> None:
    stage_b = "time 1 → 0 in 12 steps"
    await shows(drawn, "schedule", "time 1 → 0 in 29 steps", stage_b)
    points = "document.querySelector('.wuerstchen-schedule .points').getAttribute('d').split('M')"
    assert len(await drawn.js(points)) == 1 + 30
    await set_widget(drawn, STAGE_C, "denoise", 0.5)
    await set_widget(drawn, STAGE_C, "scheduler", "uniform")
    await set_widget(drawn, STAGE_C, "steps", 2)
    await shows(drawn, "schedule", "time 0.5 → 0 in 2 steps", stage_b)
    assert await drawn.js(points) == ["", "0 0.5h0", "0.5 0.75h0", "1 1h0"]
    await set_widget(drawn, STAGE_C, "denoise", 0)
    await shows(drawn, "schedule", "no steps: the latent stays as it is", stage_b)

    # Neither saved workflows nor prompts know of the views.
    saved = await drawn.js(f"{drawn.node(STAGE_C)}.serialize()")
    assert saved["widgets_values"] == [1, "fixed", 2, 2, "ddpm", "uniform", 0]
    assert list(saved["widgets_values_named"])[-1] == "denoise"
    prompt = await drawn.js("app.graphToPrompt().then(p => p.output)")
    ours = [node for node in prompt.values() if node["class_type"] in NODE_CLASS_MAPPINGS]
    assert len(ours) == 7
    for node in ours:
        groups = NODE_CLASS_MAPPINGS[node["class_type"]].INPUT_TYPES().values()
        assert node["inputs"].keys() <= {name for group in groups for name in group}


async def test_sockets_keep_their_colours_in_every_theme(drawn: Canvas) -> None:
    await drawn.until(f"{COLOURS}.flat().every(Boolean)")
    first = await drawn.js(COLOURS)
    assert [len(set(colours)) for colours in first] == [1] * len(SOCKETS)
    assert len({colours[0] for colours in first}) == len(SOCKETS)
    for theme in ("light", "solarized", "dark"):
        await drawn.js("app.extensionManager.setting.set('Comfy.ColorPalette', a)", theme)
        await drawn.js("app.extensionManager.colorPalette.loadColorPalette(a)", theme)
        assert await drawn.js(COLOURS) == first
        await drawn.screenshot(f"theme-{theme}-{await drawn.js('LiteGraph.vueNodesMode')}")


async def test_the_pipeline_is_inserted_below_what_is_there(drawn: Canvas) -> None:
    nodes, wires = "app.graph.serialize().nodes", "app.graph.links.size"
    before, wired = await drawn.js(nodes), await drawn.js(wires)
    await command(drawn, "Wuerstchen.InsertPipeline")
    await drawn.until(f"{wires} === {2 * wired}")
    after = {node["id"]: node for node in await drawn.js(nodes)}
    kept = [after.pop(node["id"]) for node in before]
    same = ("type", "title", "color", "widgets_values")
    for old, now, new in zip(before, kept, after.values(), strict=True):
        assert (now["pos"], now["inputs"]) == (old["pos"], old["inputs"])
        assert [new.get(key) for key in same] == [old.get(key) for key in same]
        assert [i["name"] for i in new["inputs"] if i["link"] is not None] == [
            i["name"] for i in old["inputs"] if i["link"] is not None
        ]
    bottom = max(node["pos"][1] + node["size"][1] for node in before)
    assert min(node["pos"][1] for node in after.values()) > bottom
    await drawn.screenshot(f"inserted-{await drawn.js('LiteGraph.vueNodesMode')}")
    await command(drawn, "Comfy.Undo")
    await drawn.until(f"app.graph.nodes.length === {len(before)} && {wires} === {wired}")


async def test_the_canvas_menu_inserts_the_pipeline(canvas: Canvas) -> None:
    await canvas.open()
    await canvas.page.mouse.click(800, 900, button="right")
    await canvas.page.get_by_text("Insert Würstchen pipeline").click()
    await canvas.until("app.graph.nodes.length === 18")


async def test_help_pages_show_their_pictures(canvas: Canvas) -> None:
    await canvas.open()
    await change(
        canvas,
        "app.graph.clear(); for (const type of "
        + json.dumps(list(NODE_CLASS_MAPPINGS))
        + ") app.graph.add(LiteGraph.createNode(type))",
    )
    for node_id in NODE_CLASS_MAPPINGS:
        await canvas.js(f"app.canvas.selectItems([{canvas.node(node_id)}])")
        if not await canvas.page.locator(".node-help-content").count():
            await canvas.test_id("info-button").click()
        await canvas.until(
            "(p => p.length === 1 && p[0].complete && p[0].naturalWidth > 0 && p[0].alt"
            f" && p[0].src.endsWith('/docs/{node_id}/picture.png'))"
            "([...document.querySelectorAll('.node-help-content img')])"
        )
