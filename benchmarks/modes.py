"""Whole pictures by ours in each of its modes, and with both sides compiled."""

from collections.abc import Sequence
from dataclasses import replace

from pictures import (
    add_up,
    needed,
    paint,
    painter_of_ours,
    painter_of_theirs,
    towers_of,
    weights_of,
)
from published import ours_of
from runner import Need, Runner, Stage, logger
from stages import Request
from tables import OURS, THEIRS, Row, Side

from comfyui_wuerstchen.wuerstchen_core.errors import SettingError
from comfyui_wuerstchen.wuerstchen_core.optimize import Optimization
from comfyui_wuerstchen.wuerstchen_core.pipeline import Pipeline

MODES = {
    "one stage resident": Optimization(residency="one_stage"),
    "streamed": Optimization(residency="streamed"),
    "int8": Optimization(storage="int8"),
    "float8": Optimization(storage="float8"),
    "compiled blocks": Optimization(compile="blocks"),
    "CUDA graphs": Optimization(compile="cuda_graphs"),
}

# What needs a GPU: on the CPU all memory is the host's.
ON_CUDA = ("one stage resident", "streamed", "CUDA graphs")

COMPILED = "text to picture, both compiled"
BUILD_SECONDS = 30  # about, of our networks
COMPILE_SECONDS = 200  # about, of diffusers' two networks on a GPU machine


def modes(runner: Runner, names: Sequence[str], eager: Row, stages: Sequence[Stage]) -> None:
    """A row for each of these modes and the request of `eager`, which ran with no switch set.

    stages: where the pictures are composed, those of this request; else empty.
    """
    if OURS not in eager.sides:
        return
    request = Request(eager.pixels, eager.batch)
    table = runner.results.modes
    if stages:
        seconds = BUILD_SECONDS + 2 * sum(s.row.sides[OURS].median for s in needed(stages))
    else:
        seconds = BUILD_SECONDS + 2 * eager.sides[OURS].median
    runner.add(table, replace(eager, what="resident"))
    for name in names:
        if name in ON_CUDA and not runner.device.cuda:
            continue
        if not runner.fits(name, Need(seconds)):
            continue
        try:
            side = _mode(runner, request, MODES[name], stages)
        except SettingError as error:
            logger.warning("left out: %s; %s", name, error)
            continue
        row = replace(eager, what=name, sides={**eager.sides, OURS: side})
        runner.add(table, row)


def _mode(
    runner: Runner,
    request: Request,
    optimization: Optimization,
    stages: Sequence[Stage],
) -> Side:
    runner.drop_ours()
    before = runner.device.in_use()
    pipeline = ours_of(runner.reference, runner.config, runner.torch_dtype, optimization)
    runner.device.free()
    weights = runner.device.in_use() - before
    if stages:
        return _added_up(runner, pipeline, stages, weights)
    painter = painter_of_ours(pipeline, request, weights, warms_up=True)
    picture = paint(runner, "", request, {OURS: painter}, 1, runner.dtype)
    return picture.row.sides[OURS]


def _added_up(runner: Runner, pipeline: Pipeline, stages: Sequence[Stage], weights: int) -> Side:
    parts = []
    for stage in needed(stages):
        run = stage.case.ours(pipeline)
        _, memory = runner.device.peak_of(run)
        seconds = [runner.device.seconds(run)]
        parts.append((stage, runner.side(runner.dtype, seconds, memory, stage.operations)))
    return add_up(runner, parts, towers_of(pipeline), weights)


def both_compiled(runner: Runner, request: Request, rounds: int) -> None:
    """diffusers as its documentation tells, ours in the fastest way this device has."""
    if not runner.fits(f"{COMPILED}, {request}", Need(COMPILE_SECONDS)):
        return
    runner.drop_ours()
    mode = MODES["CUDA graphs" if runner.device.cuda else "compiled blocks"]
    pipeline = ours_of(runner.reference, runner.config, runner.torch_dtype, mode)
    painters = {
        OURS: painter_of_ours(pipeline, request, weights_of(pipeline), warms_up=True),
        THEIRS: painter_of_theirs(runner.reference, request, compiled=True),
    }
    picture = paint(runner, COMPILED, request, painters, rounds, runner.dtype)
    runner.add(runner.results.rows, picture.row)
