"""The example of Würstchen v1, on tiny weights in the published layout: real ones do not ship."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from comfyui_wuerstchen.host.cli import main

from ..paths import WORKFLOWS

EXAMPLE = WORKFLOWS / "v1_text_to_image.json"
QUICK = [
    "Size.width=200", "Size.height=128", "Size.batch_size=2", "Stage C.steps=3", "Stage B.steps=2"
]  # fmt: skip


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs the example in an empty folder -> (exit code, saved pictures, all error lines)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, list[Path], str]:
        code = main(["run", str(EXAMPLE), *arguments])
        out, err = capsys.readouterr()
        return code, [Path(line) for line in out.splitlines() if line.endswith(".png")], err

    return call


def test_it_runs_on_the_published_layout(run, published_v1: Path) -> None:
    settings = [word for setting in QUICK for word in ("--set", setting)]
    code, pictures, errors = run("--models", str(published_v1.parent), *settings)
    assert code == 0, errors
    found = [np.asarray(Image.open(path)) for path in pictures]
    assert [picture.shape for picture in found] == [(128, 200, 3)] * 2
    assert not np.array_equal(*found)


def test_without_the_weights_it_says_what_is_missing(run) -> None:
    code, pictures, errors = run()
    assert (code, pictures) == (2, []) and "wuerstchen-v1" in errors and "Traceback" not in errors
