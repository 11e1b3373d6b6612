"""The bench runs as documented, on tiny networks; its numbers mean what its tables say."""

import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from ..paths import ROOT

pytestmark = pytest.mark.slow

STAGES = ["Stage C step", "Stage B step", "Stage A decode", "Stage A encode"]


def bench(folder: Path, *arguments: str) -> tuple[dict[str, Any], str]:
    """(what it saved, what it printed) for 128×128 pictures."""
    path = folder / "found.json"
    command = [sys.executable, "benchmarks/bench.py", "--sizes", "tiny", "--json", str(path)]
    options = ["--pixels", "128", "--batches", "1", "--rounds", "2"]
    done = subprocess.run(
        [*command, *options, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(path.read_text(encoding="utf-8")), done.stdout


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """Every stage and a whole picture, and how they grow, in bfloat16."""
    folder = tmp_path_factory.mktemp("bench")
    sizes = ["--megapixels", "0.015625", "0.0625", "--growing-batches", "1", "2"]
    plot = ["--plot", str(folder / "scaling.png")]
    found = bench(folder, "--dtype", "bfloat16", "--tables", "stages", "scaling", *sizes, *plot)
    assert (folder / "scaling.png").stat().st_size > 1000
    return found


def test_every_row_is_there(run: tuple[dict[str, Any], str]) -> None:
    whole = ["text to picture", "text to picture, out of the box"]
    assert [row["what"] for row in run[0]["rows"]] == [*STAGES, *whole]
    for row in run[0]["rows"]:
        assert (row["pixels"], row["batch"], row["composed"]) == (128, 1, False)
        assert set(row["sides"]) == {"ours", "diffusers"}
    default = run[0]["rows"][-1]["sides"]
    assert (default["ours"]["dtype"], default["diffusers"]["dtype"]) == ("bfloat16", "float32")


def test_ratios_are_of_medians_and_shares_of_the_matrix_rate(
    run: tuple[dict[str, Any], str],
) -> None:
    found = run[0]
    for row in found["rows"]:
        ours, theirs = row["sides"]["ours"], row["sides"]["diffusers"]
        assert row["ratio"] == pytest.approx(median(theirs["seconds"]) / median(ours["seconds"]))
        done = [
            side["share"] * median(side["seconds"]) * found["matrix_rate"][side["dtype"]]
            for side in (ours, theirs)
        ]
        assert done[0] == pytest.approx(done[1])  # both sides are measured by the same operations


def test_errors_are_those_of_bfloat16(run: tuple[dict[str, Any], str]) -> None:
    for row in run[0]["rows"][:-1]:
        ours, theirs = row["sides"]["ours"]["error"], row["sides"]["diffusers"]["error"]
        assert 1e-5 < ours < 0.03, row["what"]
        assert ours < 1.2 * theirs, row["what"]


def test_growth_is_measured_by_area_and_by_batch(run: tuple[dict[str, Any], str]) -> None:
    measured = [(row["what"], row["pixels"], row["batch"]) for row in run[0]["scaling"]]
    growing = [*STAGES[:3], "text to picture"]
    assert measured == [(w, p, b) for p, b in ((128, 1), (256, 1), (128, 2)) for w in growing]


def test_float32_is_the_reference_itself(tmp_path: Path) -> None:
    """With `--quick`, so the picture is added up from its stages."""
    options = ["--dtype", "float32", "--tables", "stages", "modes", "--modes", "int8"]
    found, printed = bench(tmp_path, *options, "--quick", "--markdown")
    *stages, whole = found["rows"]
    for row in stages:
        assert row["sides"]["diffusers"]["error"] == 0
        assert row["sides"]["ours"]["error"] < 1e-5, row["what"]
    assert whole["composed"]
    for who, side in whole["sides"].items():
        c, b, a, _ = (median(row["sides"][who]["seconds"]) for row in stages)
        assert median(side["seconds"]) > 29 * c + 12 * b + a
    modes = [mode["what"] for mode in found["modes"]]
    assert modes in (["resident", "int8"], ["resident"])  # int8 needs torchao

    lines = [line for line in printed.splitlines() if line.startswith("| ")]
    assert len(lines) == 2 + len(found["rows"]) + 2 + len(modes)
    assert lines[2].startswith(f"| Stage C step | 128² | 1 | {stages[0]['ratio']:.2f}× |")


def test_what_does_not_fit_into_the_time_is_left_out(tmp_path: Path) -> None:
    found, _ = bench(tmp_path, "--tables", "stages", "--quick", "--minutes", "0.0001")
    assert [row["what"] for row in found["rows"]] == STAGES
    assert all(row["sides"] == {} for row in found["rows"])
