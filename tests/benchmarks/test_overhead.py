"""The benchmark of the host's overhead runs as its documentation says."""

import re
import subprocess
import sys

from ..paths import ROOT

ROW = re.compile(r"(?P<name>.+?) +(?P<median>\d+\.\d\d) +(?P<p99>\d+\.\d\d) (?P<unit>ms.*)")


def test_every_row_is_measured() -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/overhead.py", "--runs", "2", "--history", "2"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = [ROW.fullmatch(line.strip()) for line in done.stdout.splitlines()[1:]]
    assert all(rows), done.stdout
    names = [row["name"] for row in rows if row]
    assert names[0] == "chain of 10, nothing cached"
    assert names[-3:] == [
        "POST /prompt to first call",
        "with 200 more nodes",
        "with 2 prompts in the history",
    ]
    # To the first call of a network there is at least a request and a write to the disk.
    assert all(0 < float(row["median"]) <= float(row["p99"]) for row in rows[-3:] if row)
