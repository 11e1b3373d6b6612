"""Whole pictures, text to PIL: rows of both sides, and ours in each of its modes."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from measure import alternate, error_of
from published import Reference
from runner import FLOAT32, Need, Runner, Stage
from stages import (
    PROMPT,
    WARM_UP,
    Request,
    Steps,
    cases,
    operations_of,
    picture_of_ours,
    picture_of_theirs,
)
from tables import OURS, THEIRS, Row, Side
from torch import Tensor, nn

from comfyui_wuerstchen.wuerstchen_core.pipeline import Pipeline
from comfyui_wuerstchen.wuerstchen_core.residency import weight_bytes
from comfyui_wuerstchen.wuerstchen_core.text_encoder import TextEncoder

PICTURE = "text to picture"
OUT_OF_THE_BOX = "text to picture, out of the box"


@dataclass
class Picture:
    """A row of whole pictures with what both sides made."""

    row: Row
    request: Request
    found: dict[str, Tensor]


@dataclass(frozen=True)
class Painter:
    """One side, ready. draw: (steps, where diffusers' noise is drawn) -> B×H×W×3 in [0, 1];
    weights: bytes."""

    draw: Callable[[Steps, torch.device], Tensor]
    weights: int
    warms_up: bool = False


def painter_of_ours(
    pipeline: Pipeline, request: Request, weights: int, warms_up: bool = False
) -> Painter:
    return Painter(lambda steps, _: picture_of_ours(pipeline, request, steps), weights, warms_up)


def painter_of_theirs(reference: Reference, request: Request, compiled: bool = False) -> Painter:
    pipelines = reference.pipelines(compiled)

    def draw(steps: Steps, noise: torch.device) -> Tensor:
        return picture_of_theirs(pipelines, request, noise, steps)

    return Painter(draw, _weights(reference.networks), warms_up=compiled)


def _weights(networks: Iterable[nn.Module]) -> int:
    return sum(weight_bytes(network) for network in networks)


def towers_of(pipeline: Pipeline) -> tuple[TextEncoder, TextEncoder]:
    return pipeline.prior_text_encoder, pipeline.decoder_text_encoder


def weights_of(pipeline: Pipeline) -> int:
    towers = (tower.network for tower in towers_of(pipeline))
    return _weights((pipeline.stage_c, pipeline.stage_b, pipeline.stage_a, *towers))


def paint(
    runner: Runner,
    what: str,
    request: Request,
    painters: dict[str, Painter],
    rounds: int,
    dtype: str,
) -> Picture:
    """A row of whole pictures, drawn in turns.

    The first round draws its noise on the CPU, the same for all. On CUDA it is not timed, so that
    diffusers is timed with noise from the device, as its users run it.
    """
    device, cpu = runner.device, torch.device("cpu")
    row, found = Row(what, request.side, request.batch), {}
    operations = operations_of_picture(runner, request)
    seconds: dict[str, list[float]] = {}
    memory: dict[str, int] = {}
    for who, painter in painters.items():

        def first(painter: Painter = painter) -> tuple[Tensor, float]:
            if painter.warms_up or device.cuda:
                painter.draw(WARM_UP, cpu)
            return device.timed(lambda: painter.draw(Steps(), cpu))

        (found[who], taken), beside = device.peak_of(first)
        seconds[who], memory[who] = ([] if device.cuda else [taken]), painter.weights + beside
    left = rounds if device.cuda else rounds - 1
    runs = [lambda p=p: p.draw(Steps(), device.torch) for p in painters.values()]
    for who, more in zip(painters, alternate(device, runs, left), strict=True):
        row.sides[who] = runner.side(dtype, seconds[who] + more, memory[who], operations)
    return Picture(row, request, found)


def operations_of_picture(runner: Runner, request: Request) -> int:
    """Of all steps; the text towers, 0.3 % of it, are left out."""
    return sum(case.count * operations_of(case, runner.empty) for case in cases(request))


def both(runner: Runner, request: Request, rounds: int, stages: Sequence[Stage]) -> Picture | None:
    """The row of a picture, really run. stages: its rows, which tell what it will take."""
    sides = [side for stage in needed(stages) for side in stage.row.sides.values()]
    if len(sides) < 2 * len(needed(stages)):
        return None
    calls = [stage.case.count for stage in needed(stages) for _ in stage.row.sides]
    round_ = sum(count * side.median for count, side in zip(calls, sides, strict=True))
    need = Need((rounds + 1) * round_, max(side.memory for side in sides))
    if not runner.fits(f"{PICTURE}, {request}", need):
        return None
    painters = {
        OURS: painter_of_ours(runner.ours, request, weights_of(runner.ours)),
        THEIRS: painter_of_theirs(runner.reference, request),
    }
    picture = paint(runner, PICTURE, request, painters, rounds, runner.dtype)
    runner.add(runner.results.rows, picture.row)
    return picture


def out_of_the_box(runner: Runner, picture: Picture) -> None:
    """The errors of a picture, and its row with diffusers' default dtype: its networks are in
    float32 by now."""
    ours, theirs = picture.row.sides[OURS], picture.row.sides[THEIRS]
    activations = 2 * (theirs.memory - _weights(runner.reference.networks) // 2)
    need = Need(theirs.median * runner.slower_in_float32, activations)
    if not runner.fits(f"{OUT_OF_THE_BOX}, {picture.request}", need):
        return
    painters = {THEIRS: painter_of_theirs(runner.reference, picture.request)}
    alone = paint(runner, OUT_OF_THE_BOX, picture.request, painters, 1, FLOAT32)
    for who, found in picture.found.items():
        runner.set_error(picture.row, who, error_of(found, alone.found[THEIRS]))
    if runner.dtype != FLOAT32:
        alone.row.sides = {OURS: ours, **alone.row.sides}
        runner.add(runner.results.rows, alone.row)


def needed(stages: Sequence[Stage]) -> list[Stage]:
    """Those that a picture from text is made by."""
    return [stage for stage in stages if stage.case.count]


def composed(runner: Runner, stages: Sequence[Stage], table: list[Row]) -> Row:
    """The row of a picture, added up from those of its stages; what lacks one is left out."""
    stages = needed(stages)
    row = Row(PICTURE, stages[0].request.side, stages[0].request.batch, composed=True)
    parts = {
        who: [(stage, stage.row.sides[who]) for stage in stages if who in stage.row.sides]
        for who in (OURS, THEIRS)
    }
    if len(parts[OURS]) == len(stages):
        once = sum(stage.once for stage in stages)
        ours = runner.ours
        row.sides[OURS] = add_up(runner, parts[OURS], towers_of(ours), weights_of(ours), once)
    if len(parts[THEIRS]) == len(stages):
        row.sides[THEIRS] = _theirs_added_up(runner, parts[THEIRS])
    if row.sides:
        runner.add(table, row)
    return row


def composed_out_of_the_box(runner: Runner, row: Row, stages: Sequence[Stage]) -> None:
    """The same with diffusers' default dtype: its networks are in float32 by now."""
    stages = needed(stages)
    parts = [(stage, stage.float32) for stage in stages if stage.float32 is not None]
    if OURS in row.sides and len(parts) == len(stages) and runner.dtype != FLOAT32:
        sides = {OURS: row.sides[OURS], THEIRS: _theirs_added_up(runner, parts)}
        whole = Row(OUT_OF_THE_BOX, row.pixels, row.batch, sides, composed=True)
        runner.add(runner.results.rows, whole)


def _theirs_added_up(runner: Runner, parts: Sequence[tuple[Stage, Side]]) -> Side:
    reference = runner.reference
    return add_up(runner, parts, reference.towers(), _weights(reference.networks))


def add_up(
    runner: Runner,
    parts: Sequence[tuple[Stage, Side]],
    towers: Iterable[TextEncoder],
    weights: int,
    once: float = 0.0,
) -> Side:
    """A picture's numbers from its stages'. weights: bytes; once: seconds of preparation."""
    seconds, operations = once, 0
    for tower in towers:
        tower.encode([PROMPT])
        seconds += 2 * runner.device.seconds(lambda tower=tower: tower.encode([PROMPT]))
    for stage, side in parts:
        seconds += stage.case.count * side.median
        operations += stage.case.count * stage.operations
    memory = weights + max(side.memory for _, side in parts)
    return runner.side(parts[0][1].dtype, [seconds], memory, operations)
