"""Every example, opened from its link and run on the canvas."""

from pathlib import Path

import pytest

from ..examples import ON_DEMO
from .canvas import Canvas

UNKNOWN = "app.graph.nodes.map(n => n.type).filter(t => !LiteGraph.registered_node_types[t])"
SAVED = "n => ['SaveImage', 'PreviewImage'].includes(n.type)"
SHOWN = f"app.graph.nodes.find({SAVED})?.imgs?.[0]?.naturalWidth > 0"


@pytest.mark.parametrize("example", ON_DEMO, ids=lambda path: path.stem)
async def test_it_opens_and_runs(canvas: Canvas, example: Path) -> None:
    await canvas.open(example.stem)
    assert await canvas.js(UNKNOWN) == []
    await canvas.run()
    await canvas.until(SHOWN)
    await canvas.screenshot(f"example-{example.stem}")
