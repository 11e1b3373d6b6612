"""What the bench found, as rows of tables and as JSON."""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

OURS, THEIRS = "ours", "diffusers"


@dataclass
class Side:
    """One implementation's numbers.

    seconds: of each run. memory: bytes at the worst moment; of a stage beside the weights, of a
    whole picture with them. share: of the machine's matrix rate in this dtype. error: against
    float32, root mean square, relative.
    """

    dtype: str
    seconds: list[float]
    memory: int
    share: float
    error: float | None = None

    @property
    def median(self) -> float:
        return median(self.seconds)


@dataclass
class Row:
    """sides: by name; one that does not fit into memory or time is missing.
    composed: added up from the rows of the stages, not run."""

    what: str
    pixels: int  # of a square picture's side
    batch: int
    sides: dict[str, Side] = field(default_factory=dict)
    composed: bool = False

    @property
    def ratio(self) -> float | None:
        """How many times as fast ours is."""
        if len(self.sides) < 2:
            return None
        return self.sides[THEIRS].median / self.sides[OURS].median


@dataclass
class Results:
    machine: dict[str, Any]
    matrix_rate: dict[str, float]  # operations a second, by dtype
    rows: list[Row] = field(default_factory=list)
    modes: list[Row] = field(default_factory=list)
    scaling: list[Row] = field(default_factory=list)

    def save(self, path: Path) -> None:
        found = asdict(self)
        for table in ("rows", "modes", "scaling"):
            for row, entry in zip(getattr(self, table), found[table], strict=True):
                entry["ratio"] = row.ratio
        path.write_text(json.dumps(found, indent=1), encoding="utf-8")

    def markdown(self) -> str:
        about = ", ".join(f"{name} {value}" for name, value in self.machine.items())
        rates = ", ".join(f"{n} {r / 1e12:.3g} TFLOP/s" for n, r in self.matrix_rate.items())
        parts = [f"{about}; matrix rate: {rates}"]
        if self.rows:
            parts.append(_table("what", self.rows, _BOTH, with_ratio=True))
        if self.modes:
            parts.append(_table("mode", self.modes, _OURS_ALONE, with_ratio=True))
        if self.scaling:
            parts.append(_table("what", self.scaling, _GROWTH, with_ratio=False))
        return "\n\n".join(parts)


# A column: its name, whose number, and which.
Column = tuple[str, str, Callable[[Side], str]]


def _seconds(side: Side) -> str:
    """The median, and the spread where there were several runs."""
    low, high = min(side.seconds), max(side.seconds)
    spread = f" ({_number(low)}–{_number(high)})" if len(side.seconds) > 1 else ""
    return f"{_number(side.median)} s{spread}"


def _number(seconds: float) -> str:
    return f"{seconds:.3g}" if seconds < 100 else f"{seconds:.0f}"


def _memory(side: Side) -> str:
    return f"{side.memory / 1e9:.2f} GB" if side.memory else "–"


def _share(side: Side) -> str:
    return f"{side.share:.0%}"


def _error(side: Side) -> str:
    return "–" if side.error is None else f"{side.error:.1e}"


def _columns(name: str, value: Callable[[Side], str]) -> list[Column]:
    return [(f"{name}, {who}", who, value) for who in (OURS, THEIRS)]


_BOTH = [
    *_columns("time", _seconds),
    *_columns("peak memory", _memory),
    *_columns("share of matrix rate", _share),
    *_columns("error", _error),
]
_OURS_ALONE = [("time", OURS, _seconds), ("peak memory", OURS, _memory), ("share", OURS, _share)]
_GROWTH = [*_columns("time", _seconds), *_columns("peak memory", _memory)]


def _table(first: str, rows: Iterable[Row], columns: list[Column], with_ratio: bool) -> str:
    head = [first, "size", "batch", *(["ratio"] if with_ratio else [])]
    lines = [head + [name for name, _, _ in columns]]
    lines.append(["---"] * len(lines[0]))
    for row in rows:
        ratio = [_ratio(row)] if with_ratio else []
        lines.append([_title(row), f"{row.pixels}²", str(row.batch), *ratio, *_cells(row, columns)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _title(row: Row) -> str:
    dtypes = [side.dtype for side in row.sides.values()]
    mixed = f", {' : '.join(dtypes)}" if len(set(dtypes)) > 1 else ""
    return row.what + mixed + (" (composed)" if row.composed else "")


def _ratio(row: Row) -> str:
    return "–" if row.ratio is None else f"{row.ratio:.2f}×"


def _cells(row: Row, columns: list[Column]) -> list[str]:
    return [value(row.sides[who]) if who in row.sides else "–" for _, who, value in columns]


def line(row: Row) -> str:
    """One row for the terminal, as soon as it is known."""
    cells = (cell.rjust(24 if i < 2 else 9) for i, cell in enumerate(_cells(row, _BOTH)))
    return f"{_title(row):<32} {row.pixels:>5}² ×{row.batch:<3} {_ratio(row):>7} {' '.join(cells)}"
