"""What the examples promise, run headless on the demo."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from comfyui_wuerstchen.host.cli import main
from comfyui_wuerstchen.wuerstchen_core.grid import GAP
from comfyui_wuerstchen.wuerstchen_core.training.demo.checker import check
from comfyui_wuerstchen.wuerstchen_core.training.demo.scenes import COLORS

from .paths import ROOT, WORKFLOWS

SIDE = 256


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """(example, settings) -> the pictures that it saves, H×W×3."""
    monkeypatch.chdir(tmp_path)

    def call(example: str, *settings: str) -> list[np.ndarray]:
        chosen = [word for one in settings for word in ("--set", one)]
        code = main(["run", str(WORKFLOWS / f"{example}.json"), *chosen])
        out, err = capsys.readouterr()
        assert code == 0, err
        return [pixels(Path(line)) for line in out.splitlines() if line.endswith(".png")]

    return call


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def reading(picture: np.ndarray):
    return check(torch.from_numpy(picture.copy()).movedim(-1, 0)[None] / 255)[0]


def of_color(picture: np.ndarray, color: str) -> np.ndarray:
    """Which pixels have this colour."""
    return np.linalg.norm(picture / 255 - np.array(COLORS[color]), axis=-1) < 0.3


def share_of(picture: np.ndarray, color: str) -> float:
    return float(of_color(picture, color).mean())


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of what is not blue."""
    a, b = ~of_color(one, "blue"), ~of_color(other, "blue")
    return float((a & b).sum() / (a | b).sum())


def test_weights_say_which_word_counts(run) -> None:
    (star,) = run("prompt_weights")
    even = "a large red (star:1.0) (heart:1.0) in the center on a blue background"
    (heart,) = run("prompt_weights", f"prompt={even}")
    (alone,) = run("prompt_weights", "prompt=a large red star in the center on a blue background")
    assert overlap(star, alone) > overlap(heart, alone) + 0.05


def test_each_picture_of_a_batch_shows_its_own_line(run) -> None:
    found = [reading(one) for one in run("batch_prompts")]
    assert [(one.color, one.background) for one in found] == [
        ("red", "blue"),
        ("green", "yellow"),
        ("purple", "white"),
        ("orange", "black"),
    ]


def test_each_cell_of_a_grid_is_the_picture_of_its_pair(run) -> None:
    quick = ["Stage C.steps=6", "Stage B.steps=2"]
    (grid,) = run("xy_prompts_seeds", *quick)
    top, left = grid.shape[0] - 2 * (SIDE + GAP), grid.shape[1] - 2 * (SIDE + GAP)
    texts = ["a large red star on a blue background", "a small green heart on a yellow background"]
    for row, column in ((0, 1), (1, 0)):
        seeds = [f"Stage {stage}.seed={seed}" for stage, seed in (("C", row + 1), ("B", 1))]
        (alone,) = run("text_to_image", f"prompt={texts[column]}", *seeds, *quick)
        y, x = top + row * (SIDE + GAP), left + column * (SIDE + GAP)
        cell = grid[y : y + SIDE, x : x + SIDE].astype(int)
        assert np.abs(cell - alone).max() <= 1  # rounded twice


def test_a_grid_of_strengths_goes_from_the_picture_to_the_prompt(run) -> None:
    (grid,) = run("xy_strength_seeds", "Stage B.steps=6")
    columns = [
        grid[:, grid.shape[1] - n * (SIDE + GAP) :][:, :SIDE] for n in (3, 2, 1)
    ]  # of 0.4, 0.7 and 0.9
    greens = [share_of(one, "green") for one in columns]
    assert greens[0] > 0.7 > 0.1 > greens[2]


def test_a_mix_has_the_colours_of_both_pictures(run) -> None:
    (mix,) = run("mix_pictures")
    assert share_of(mix, "green") > 0.2 and share_of(mix, "yellow") > 0.05
    assert share_of(mix, "purple") + share_of(mix, "blue") > 0.05
    (first,) = run("mix_pictures", "Mix.weight_2=0")
    assert share_of(first, "purple") + share_of(first, "blue") < 0.01


def test_each_half_of_a_collage_is_of_its_picture(run) -> None:
    (collage,) = run("collage")
    left, right = collage[:, :110], collage[:, 146:]
    assert share_of(left, "green") > 0.6 and share_of(right, "purple") > 0.6
    assert share_of(left, "purple") < 0.05 and share_of(right, "green") < 0.05


def test_a_text_and_a_picture_in_one(run) -> None:
    (mix,) = run("mix_text_and_picture")
    (picture,) = run("mix_text_and_picture", "Mix.weight_1=0")
    found = reading(mix)
    assert (found.color, found.background) == ("yellow", "green")  # as in the picture
    hole = (slice(146, 168), slice(134, 156))  # of the ring that the text asks for
    assert share_of(mix[hole], "green") > 0.5 and share_of(picture[hole], "green") < 0.1


def test_two_passes_show_what_one_shows_at_the_larger_size(run) -> None:
    (large,) = run("two_pass")
    found = reading(large)
    assert large.shape == (512, 512, 3)
    assert (found.color, found.background) == ("yellow", "purple")


def test_both_strengths_of_image_to_image(run) -> None:
    picture = pixels(ROOT / "input" / "example.png")
    (kept,) = run("image_to_image", "Stage C.denoise=0", "Stage B.denoise=0")
    assert np.abs(kept.astype(int) - picture).mean() < 6
    (changed,) = run("image_to_image", "Stage C.denoise=1", "Stage B.denoise=1")
    found = reading(changed)
    assert (found.shape, found.color, found.background) == ("star", "yellow", "purple")
    (between,) = run("image_to_image")
    found = reading(between)
    assert (found.shape, found.background) == ("star", "green")  # the prompt's, the picture's


def test_inpainting_leaves_the_rest_to_the_last_bit(run) -> None:
    before = pixels(ROOT / "input" / "example.png")
    kept = np.ones(before.shape[:2], dtype=bool)
    kept[92:248, 76:240] = False
    (made,) = run("inpaint")
    assert np.array_equal(made[kept], before[kept])
    hole = made[140:190, 120:180]  # where the heart was
    assert share_of(before[140:190, 120:180], "yellow") > 0.8
    assert share_of(hole, "red") > 0.5 and share_of(hole, "yellow") < 0.2
    # Another text paints something else into the hole, and nothing elsewhere.
    (other,) = run("inpaint", "prompt=a large blue circle at the bottom")
    assert np.array_equal(other[kept], before[kept]) and not np.array_equal(other, made)


def test_outpainting_goes_on_around_the_picture(run) -> None:
    (made,) = run("outpaint")
    picture, fade = pixels(ROOT / "input" / "example.png"), 24
    assert made.shape == (SIDE, SIDE + 2 * 64, 3)
    assert np.array_equal(made[:, 64 + fade : -64 - fade], picture[:, fade:-fade])
    for side in (made[:, :64], made[:, -64:]):  # grey before
        assert share_of(side, "green") > 0.8


def test_a_region_follows_its_own_text(run) -> None:
    (made,) = run("regional_prompts")
    left, right = made[:, :96], made[:, 160:]
    assert share_of(left, "yellow") > 0.5 and share_of(left, "blue") < 0.1
    assert share_of(right, "blue") > 0.5 and share_of(right, "yellow") < 0.1


def test_the_later_text_decides_what_it_is(run) -> None:
    (made,) = run("prompt_schedule")
    found = reading(made)
    assert (found.background, found.color) == ("green", "red")


def test_a_seamless_picture_goes_on_at_its_edges(run) -> None:
    (made,) = run("seamless")
    for picture in (made.astype(float), made.astype(float).swapaxes(0, 1)):
        steps = np.abs(picture - np.roll(picture, 1, axis=0)).mean(axis=(1, 2))
        assert steps[0] <= steps[1:].max()
