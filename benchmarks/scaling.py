"""How seconds and memory grow with the megapixels of a picture and with the batch."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pictures import PICTURE, composed
from runner import Runner, Stage
from stages import DECODE, STAGE_B, STAGE_C, Request, cases
from tables import OURS, THEIRS, Row, Side

from comfyui_wuerstchen.wuerstchen_core.geometry import CANVAS_STEP

GROWING = (STAGE_C, STAGE_B, DECODE)
_COLOURS = dict(zip((*GROWING, PICTURE), ("C0", "C1", "C2", "black"), strict=True))


def request_of(megapixels: float, batch: int = 1) -> Request:
    """The nearest square that the stages need no crop for; 1 megapixel is 1024²."""
    steps = round(megapixels**0.5 * 1024 / CANVAS_STEP)
    return Request(max(steps, 1) * CANVAS_STEP, batch)


def scale(
    runner: Runner,
    megapixels: Sequence[float],
    batches: Sequence[int],
    theirs_up_to: float,
    plot: Path | None,
) -> None:
    """One run a stage and request after one that warms up; pictures are added up.

    batches: of the smallest picture. theirs_up_to: megapixels times batch; of more, only ours are
    run.
    """
    requests = [request_of(area) for area in sorted(megapixels)]
    requests += [Request(requests[0].side, batch) for batch in sorted(batches)]
    table = runner.results.scaling
    for request in dict.fromkeys(requests):
        stages: list[Stage] = []
        theirs = request.batch * request.side**2 <= theirs_up_to * 2**20
        for case in cases(request):
            if case.what in GROWING:
                stages.append(runner.stage(case, request, 1, table, theirs))
                stages[-1].found.clear()  # pictures of 16 megapixels take memory
        composed(runner, stages, table)
    if plot is not None:
        draw(table, plot)


def draw(table: Sequence[Row], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    smallest = min(row.pixels for row in table)
    # What grows: its name, the rows, and what it is of a row.
    growths: list[tuple[str, list[Row], Callable[[Row], float]]] = [
        ("megapixels, batch 1", [r for r in table if r.batch == 1], lambda r: r.pixels**2 / 2**20),
        (f"batch, {smallest}²", [r for r in table if r.pixels == smallest], lambda r: r.batch),
    ]
    values: list[tuple[str, Callable[[Side], float]]] = [
        ("seconds", lambda side: side.median),
        ("peak memory, GB", lambda side: side.memory / 1e9),
    ]
    figure, axes = pyplot.subplots(2, 2, figsize=(10, 8))
    for column, (along, rows, x) in enumerate(growths):
        for line, (name, y) in enumerate(values):
            _panel(axes[line][column], rows, x, y)
            panel = axes[line][column]
            panel.set(xlabel=along, ylabel=name, xscale="log", yscale="log")
            ticks = sorted({round(x(row), 1) for row in rows})
            panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            panel.minorticks_off()
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="lower center", ncols=4, fontsize=8)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    figure.savefig(path, dpi=110)


def _panel(
    axes: Any, rows: Sequence[Row], x: Callable[[Row], float], y: Callable[[Side], float]
) -> None:
    for what, colour in _COLOURS.items():
        for who, style in ((OURS, "o-"), (THEIRS, "x--")):
            points = [
                (x(row), y(row.sides[who])) for row in rows if row.what == what and who in row.sides
            ]
            if points:
                axes.plot(*zip(*points, strict=True), style, color=colour, label=f"{what}, {who}")
