"""Both sides' networks on one device, and the rows of the stages."""

import logging
import statistics
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from measure import Device, alternate, error_of, machine
from published import Sizes, empty_reference, ours_of, random_reference
from stages import STAGE_C, Case, Request, Run, operations_of
from tables import OURS, THEIRS, Results, Row, Side, line
from torch import Tensor

from comfyui_wuerstchen.wuerstchen_core.pipeline import Pipeline

logger = logging.getLogger("bench")

FLOAT32 = "float32"
CUDA_CALLS, SHORT = 10, 0.1  # so often between two synchronisations goes what takes fewer seconds
_USABLE = 0.9  # of the free memory


@dataclass(frozen=True)
class Need:
    """What a measurement is foretold to take: seconds and bytes."""

    seconds: float = 0.0
    memory: float = 0.0


@dataclass
class Stage:
    """A stage's row with what it was made of. once: our seconds of preparing a picture."""

    row: Row
    case: Case
    request: Request
    operations: int
    once: float
    found: dict[str, Tensor]
    float32: Side | None = None  # diffusers' in float32


class Runner:
    def __init__(
        self,
        device: Device,
        config: Sizes,
        dtype: torch.dtype,
        *,
        minutes: float,
        patience: float,
        matrix_side: int,
        save_to: Path | None,
    ) -> None:
        """minutes: after these nothing is started any more. patience: seconds; of a stage that
        takes longer, the first run counts."""
        self.device, self.config = device, config
        self.torch_dtype, self.dtype = dtype, name_of(dtype)
        self.patience = patience
        self._ends, self._save_to = time.monotonic() + 60 * minutes, save_to
        about = machine(device)  # before anything loads it
        dtypes = dict.fromkeys((dtype, torch.float32))
        self.rates = {name_of(d): device.matrix_rate(d, matrix_side) for d in dtypes}
        self.results = Results(about, self.rates)
        self.empty = empty_reference(config)
        both = (
            2 * dtype.itemsize * sum(p.numel() for n in self.empty.networks for p in n.parameters())
        )
        if both > device.available():
            raise SystemExit(
                f"both sides' weights take {both / 1e9:.0f} GB in {self.dtype}, of which "
                f"{device.available() / 1e9:.0f} GB are free; choose another --dtype."
            )
        self.reference = random_reference(config, dtype, device.torch)
        self._ours: Pipeline | None = None

    @property
    def ours(self) -> Pipeline:
        if self._ours is None:
            self._ours = ours_of(self.reference, self.config, self.torch_dtype)
        return self._ours

    def drop_ours(self) -> None:
        self._ours = None
        self.device.free()

    def fits(self, what: str, need: Need) -> bool:
        """Whether there is time and memory left for it; says so where not."""
        left = self._ends - time.monotonic()
        free = _USABLE * self.device.available()
        if left < need.seconds or left < 0:
            reason = f"it takes about {need.seconds:.0f} s, {max(left, 0):.0f} s are left"
        elif free < need.memory:
            wanted, left_over = need.memory / 1e9, free / 1e9
            reason = f"it takes about {wanted:.1f} GB, {left_over:.1f} GB are free"
        else:
            return True
        logger.warning("left out: %s; %s", what, reason)
        return False

    def add(self, table: list[Row], row: Row) -> None:
        table.append(row)
        print(line(row), flush=True)
        self.save()

    def save(self) -> None:
        if self._save_to is not None:
            self.results.save(self._save_to)

    def set_error(self, row: Row, who: str, error: float) -> None:
        row.sides[who].error = error
        print(f"{row.what}, {row.pixels}² ×{row.batch}: error of {who} {error:.1e}", flush=True)

    def side(self, dtype: str, seconds: list[float], memory: int, operations: int) -> Side:
        return Side(
            dtype, seconds, memory, operations / statistics.median(seconds) / self.rates[dtype]
        )

    @property
    def slower_in_float32(self) -> float:
        return self.rates[self.dtype] / self.rates[FLOAT32]

    @contextmanager
    def in_float32(self) -> Iterator[None]:
        """Inside, diffusers' networks are in float32, with the same weights, and ours are gone."""
        self.drop_ours()
        self.reference.cast(torch.float32)
        with torch.backends.cudnn.flags(allow_tf32=False):  # by default convolutions round to it
            yield
        self.reference.cast(self.torch_dtype)
        self.device.free()

    def stage(
        self,
        case: Case,
        request: Request,
        rounds: int,
        table: list[Row],
        theirs: bool = True,
    ) -> Stage:
        """Measures one row; smaller ones of the table tell what it will need.

        theirs: whether diffusers takes part."""
        started = time.perf_counter()
        runs: dict[str, Run] = {OURS: case.ours(self.ours)}
        once = time.perf_counter() - started
        if theirs:
            runs[THEIRS] = case.theirs(self.reference)
        runs = {
            who: run
            for who, run in runs.items()
            if self.fits(
                f"{case.what}, {who}, {request}",
                _foretold(table, case.what, request, who, rounds),
            )
        }
        # The first run warms up; what it gives is compared with float32.
        first = {
            who: self.device.peak_of(lambda run=run: self.device.timed(run))
            for who, run in runs.items()
        }
        longest = max((taken for (_, taken), _ in first.values()), default=0.0)
        if longest > self.patience:
            timings = [[taken] for (_, taken), _ in first.values()]
        else:
            calls = CUDA_CALLS if self.device.cuda and longest < SHORT else 1
            timings = alternate(self.device, list(runs.values()), rounds, calls)
        operations = operations_of(case, self.empty)
        row = Row(case.what, request.side, request.batch)
        for who, seconds in zip(runs, timings, strict=True):
            row.sides[who] = self.side(self.dtype, seconds, first[who][1], operations)
        self.add(table, row)
        found = {who: value for who, ((value, _), _) in first.items()}
        return Stage(row, case, request, operations, once, found)

    def compare_with_float32(self, stages: Iterable[Stage]) -> None:
        """Runs diffusers' networks, which are in float32 by now, for the errors of these rows."""
        for stage in stages:
            what = f"{stage.case.what}, float32, {stage.request}"
            if not (stage.found and self.fits(what, self._need_in_float32(stage))):
                continue
            run = stage.case.theirs(self.reference)
            (expected, seconds), memory = self.device.peak_of(
                lambda run=run: self.device.timed(run)
            )
            for who, found in stage.found.items():
                self.set_error(stage.row, who, error_of(found, expected))
            stage.float32 = self.side(FLOAT32, [seconds], memory, stage.operations)

    def _need_in_float32(self, stage: Stage) -> Need:
        side = next(iter(stage.row.sides.values()))
        return Need(side.median * self.slower_in_float32, 2 * side.memory)


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _foretold(table: list[Row], what: str, request: Request, who: str, rounds: int) -> Need:
    """From the largest smaller request of the same table. Attention grows with the square of the
    pixels; in memory it does where its whole matrix is kept, as diffusers' Stage C does."""
    smaller = [
        row
        for row in table
        if row.what == what and row.pixels <= request.side and row.batch <= request.batch
    ]
    if not smaller:
        return Need()
    row = max(smaller, key=lambda row: row.pixels**2 * row.batch)
    if who not in row.sides:  # it did not fit at a smaller size
        return Need(float("inf"), float("inf"))
    side, area = row.sides[who], (request.side / row.pixels) ** 2
    batch = request.batch / row.batch
    grows = area**2 if (what, who) == (STAGE_C, THEIRS) else area
    return Need((rounds + 1) * side.median * area**2 * batch, side.memory * grows * batch)
