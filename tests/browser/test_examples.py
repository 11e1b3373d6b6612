"""The examples, opened from their links and run on the canvas, one after the other."""

from ..examples import ON_DEMO
from .canvas import Canvas

UNKNOWN = "app.graph.nodes.map(n => n.type).filter(t => !LiteGraph.registered_node_types[t])"
SAVED = "app.graph.nodes.find(n => ['SaveImage', 'PreviewImage'].includes(n.type))"


async def test_every_example_opens_and_runs(canvas: Canvas) -> None:
    for example in ON_DEMO:
        await canvas.open(example.stem)
        assert await canvas.js(UNKNOWN) == [], example.stem
        await canvas.run()
        await canvas.until(f"{SAVED}?.imgs?.[0]?.naturalWidth > 0  /* {example.stem} */")
        await canvas.screenshot(f"example-{example.stem}")
