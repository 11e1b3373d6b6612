"""What the examples that change pictures promise: the rest stays as it was, to the last bit."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from comfyui_wuerstchen.host.cli import main
from comfyui_wuerstchen.wuerstchen_core.training.demo.checker import check
from comfyui_wuerstchen.wuerstchen_core.training.demo.scenes import COLORS

from .paths import ROOT, WORKFLOWS


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs an example -> the first picture, H×W×3 of 0 to 255."""
    monkeypatch.chdir(tmp_path)

    def call(example: str, *arguments: str) -> np.ndarray:
        code = main(["run", str(WORKFLOWS / example), *arguments])
        out, err = capsys.readouterr()
        assert code == 0, err
        with Image.open(next(line for line in out.splitlines() if line.endswith(".png"))) as made:
            return np.asarray(made.convert("RGB"))

    return call


def before(name: str) -> np.ndarray:
    with Image.open(ROOT / "input" / name) as picture:
        return np.asarray(picture)


def colour_of(pixels: np.ndarray) -> str:
    """The colour that most of these pixels are nearest to."""
    colours = torch.tensor(list(COLORS.values()))
    flat = torch.from_numpy(pixels.reshape(-1, 3).copy()) / 255
    return list(COLORS)[int(torch.cdist(flat, colours).argmin(dim=1).mode().values)]


def test_inpainting(run) -> None:
    made, picture = run("inpaint.json"), before("example_masked.png")
    kept = picture[..., 3] == 255
    assert np.array_equal(made[kept], picture[..., :3][kept])
    changed = np.abs(made.astype(int) - picture[..., :3]).max(axis=2) > 60
    assert changed[~kept].mean() > 0.1  # the heart has gone
    assert colour_of(made[140:190, 120:180]) == "red"
    # Another text paints something else into the hole, and nothing elsewhere.
    other = run("inpaint.json", "--set", "prompt=a large blue circle at the bottom")
    assert np.array_equal(other[kept], made[kept]) and not np.array_equal(other, made)


def test_outpainting(run) -> None:
    made, picture = run("outpaint.json"), before("example.png")
    fade = 24  # of `room around it`
    assert made.shape == (256, 384, 3)
    assert np.array_equal(made[:, 64 + fade : -64 - fade], picture[:, fade:-fade])
    for side in (made[:, :64], made[:, -64:]):
        assert colour_of(side) == "green"  # as the picture goes on; what was padded is grey


def test_a_region_follows_its_own_text(run) -> None:
    made = run("regional_prompts.json")
    assert colour_of(made[:, :96]) == "yellow" and colour_of(made[:, 160:]) == "blue"


def test_the_later_text_decides_the_detail(run) -> None:
    made = torch.from_numpy(run("prompt_schedule.json").copy()).movedim(-1, 0)[None] / 255
    found = check(made)[0]
    assert (found.background, found.color) == ("green", "red")


def test_a_seamless_picture(run) -> None:
    made = run("seamless.json").astype(float)
    for picture in (made, made.swapaxes(0, 1)):
        steps = np.abs(picture - np.roll(picture, 1, axis=0)).mean(axis=(1, 2))
        assert steps[0] <= steps[1:].max()
