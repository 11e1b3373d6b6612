"""Preview maps: fitting, following, drawing, and their file."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from comfyui_wuerstchen.wuerstchen_core.checkpoints.configs import STAGE_B, STAGE_C, read_config
from comfyui_wuerstchen.wuerstchen_core.errors import UnreadableCheckpointError
from comfyui_wuerstchen.wuerstchen_core.geometry import Geometry
from comfyui_wuerstchen.wuerstchen_core.preview import (
    MAPS_FILE,
    SIDE,
    Fit,
    LinearMap,
    key_of,
    on_wire,
    picture,
    principal_colours,
    read_fits,
    write_fits,
)
from comfyui_wuerstchen.wuerstchen_core.stage_b import StageBConfig
from comfyui_wuerstchen.wuerstchen_core.stage_c import StageCConfig, from_embedding

from ..paths import DEMO

PUBLISHED_C = StageCConfig(c=1536, c_cond=1280, depth=32, nhead=24)
PIXELS_A_CELL = 5


def some_map(channels: int, seed: int) -> LinearMap:
    rng = np.random.default_rng(seed)
    return LinearMap(rng.normal(size=(channels, 3)), rng.normal(size=3))


def seen(known: LinearMap, pictures: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random latents and the pictures, 5×5 px a cell, that `known` makes of them."""
    generator = torch.Generator().manual_seed(seed)
    latents = 3 + 40 * torch.randn(pictures, len(known.weight), 6, 8, generator=generator)
    colours = torch.from_numpy(known.colours(latents.movedim(1, -1).double().numpy()))
    pixels = colours.movedim(-1, 1).repeat_interleave(PIXELS_A_CELL, 2)
    return latents, pixels.repeat_interleave(PIXELS_A_CELL, 3)


def error(found: LinearMap | None, known: LinearMap) -> float:
    assert found is not None
    return float(np.abs(found.weight - known.weight).max() / np.abs(known.weight).max())


@pytest.mark.parametrize("channels", [4, 16])
def test_a_known_map_is_found_again(channels: int) -> None:
    known = some_map(channels, seed=1)
    found = Fit.empty(channels).after(*seen(known, 300, seed=2), keep=1.0).solve()
    assert error(found, known) < 0.01
    latents, _ = seen(known, 1, seed=3)
    cells = latents[0].movedim(0, -1).double().numpy()
    assert found is not None
    wanted = known.colours(cells)
    assert np.abs(found.colours(cells) - wanted).max() < 0.01 * np.abs(wanted).max()


def test_old_pictures_are_forgotten() -> None:
    old, new = some_map(16, seed=1), some_map(16, seed=2)
    before, after = seen(old, 100, seed=3), seen(new, 200, seed=4)
    assert error(Fit.empty(16).after(*before).after(*after).solve(), new) < 0.05
    never = Fit.empty(16).after(*before, keep=1.0).after(*after, keep=1.0)
    assert error(never.solve(), new) > 0.2


def test_one_picture_at_a_time_is_the_same_as_a_batch() -> None:
    latents, pixels = seen(some_map(4, seed=1), 3, seed=2)
    one_by_one = Fit.empty(4)
    for i in range(3):
        one_by_one = one_by_one.after(latents[i : i + 1], pixels[i : i + 1])
    batch = Fit.empty(4).after(latents, pixels)
    assert np.array_equal(batch.gram, one_by_one.gram)
    assert np.array_equal(batch.cross, one_by_one.cross)


def test_few_pictures_do_not_make_wild_colours() -> None:
    """One picture of a single colour over nearly equal cells says nothing about other latents."""
    generator = torch.Generator().manual_seed(0)
    cell = 40 * torch.randn(1, 16, 1, 1, generator=generator)
    latents = cell + 0.5 * torch.randn(1, 16, 6, 6, generator=generator)
    pixels = (0.7 + 0.02 * torch.randn(1, 3, 36, 36, generator=generator)).clamp(0, 1)
    found = Fit.empty(16).after(latents, pixels).solve()
    assert found is not None
    others = 40 * torch.randn(500, 1, 16, generator=generator).double().numpy()
    assert np.abs(found.colours(others) - 0.7).max() < 0.1


def test_nothing_seen_gives_no_map() -> None:
    assert Fit.empty(4).solve() is None


def test_a_latent_of_zeros_gives_the_mean_colour() -> None:
    found = Fit.empty(4).after(torch.zeros(1, 4, 8, 8), torch.full((1, 3, 32, 32), 0.25)).solve()
    assert found is not None
    assert np.allclose(found.colours(np.zeros((1, 1, 4))), 0.25)


def test_what_is_not_finite_is_left_out() -> None:
    latents, pixels = seen(some_map(4, seed=1), 3, seed=2)
    wanted = Fit.empty(4).after(latents[:1], pixels[:1])
    latents[1, 0, 0, 0], pixels[2, 0, 0, 0] = float("nan"), float("inf")
    assert np.array_equal(Fit.empty(4).after(latents, pixels).gram, wanted.gram)


def test_keys_tell_trainings_apart_and_nothing_else() -> None:
    demo_c = read_config(STAGE_C, DEMO / "wuerstchen-prior" / "prior" / "config.json")
    demo_b = read_config(STAGE_B, DEMO / "wuerstchen" / "decoder" / "config.json")
    keys = {key_of(config) for config in (demo_c, PUBLISHED_C, demo_b, StageBConfig())}
    assert len(keys) == 4
    # Files without a config.json do not tell the dropout.
    assert key_of(replace(PUBLISHED_C, dropout=0.0)) == key_of(PUBLISHED_C)
    assert key_of(replace(StageBConfig(), dropout=(0.0, 0.1))) == key_of(StageBConfig())
    assert read_fits(DEMO / MAPS_FILE).keys() == {key_of(demo_c), key_of(demo_b)}


def test_spaces_are_those_of_the_wires() -> None:
    embedding = torch.randn(2, 16, 3, 3)
    assert torch.allclose(on_wire(PUBLISHED_C, from_embedding(embedding)), embedding, atol=1e-5)
    assert torch.equal(on_wire(StageBConfig(), torch.ones(1)), torch.tensor([0.3764]))


@pytest.mark.parametrize("size", [(256, 256), (1000, 1400), (200, 130), (64, 4096)])
@pytest.mark.parametrize("stage", ["stage_c", "stage_b"])
def test_previews_show_what_was_asked_for(size: tuple[int, int], stage: str) -> None:
    """A ramp over the canvas: the preview's middle and ends are where the cut puts them."""
    geometry = Geometry(*size)
    rows, columns = getattr(geometry, stage)
    ramp = (np.arange(rows) + 0.5) / rows
    colours = np.broadcast_to(ramp[:, None, None], (rows, columns, 3))
    drawn = picture(colours, geometry)
    width, height = drawn.size
    assert max(drawn.size) == SIDE
    assert abs(width - SIDE * size[0] / max(size)) <= 1
    values = np.asarray(drawn)[:, width // 2, 0] / 255
    row = (geometry.offset[0] + (np.arange(height) + 0.5) / height * size[1]) / geometry.canvas[0]
    # Beyond the middle of the outermost cells there is nothing to rise to.
    inner = (row > 1 / rows) & (row < 1 - 1 / rows)
    assert inner.any() and np.abs(values - row)[inner].max() < 0.02


def test_a_size_of_another_latent_is_not_used() -> None:
    assert picture(np.zeros((6, 12, 3)), Geometry(200, 130)).size == (SIDE, SIDE // 2)


def test_an_unknown_latent_shows_its_shapes() -> None:
    rng = np.random.default_rng(0)
    cells = rng.normal(size=(24, 24, 16))
    cells[8:16, 8:16] += 20 * rng.normal(size=16)
    colours = principal_colours(cells)
    assert colours.shape == (24, 24, 3) and colours.min() >= 0 and colours.max() <= 1
    inside, outside = colours[8:16, 8:16], colours[:8]
    assert np.abs(inside.mean(axis=(0, 1)) - outside.mean(axis=(0, 1))).max() > 0.2
    assert np.abs(principal_colours(cells + 0.01) - colours).max() < 0.01  # no flipping
    assert np.allclose(principal_colours(np.ones((3, 3, 4))), 0.5)


def test_maps_are_kept_exactly(tmp_path: Path) -> None:
    fits = {"a": Fit.empty(4), "ü/1": Fit.empty(16).after(*seen(some_map(16, 1), 2, seed=2))}
    write_fits(tmp_path / MAPS_FILE, fits)
    again = read_fits(tmp_path / MAPS_FILE)
    assert again.keys() == fits.keys()
    for key, fit in fits.items():
        assert np.array_equal(again[key].gram, fit.gram)
        assert np.array_equal(again[key].cross, fit.cross)
    assert [path.name for path in tmp_path.iterdir()] == [MAPS_FILE]


GOOD = {"gram": [[2.0, 1.0], [1.0, 1.0]], "cross": [[1, 1, 1], [1, 1, 1]]}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{",
        "nothing",
        '{"a": 1}',
        '{"a": {}}',
        "[" * 100_000,
        json.dumps({"a": {**GOOD, "gram": [[1.0]]}}),
        json.dumps({"a": {**GOOD, "gram": [[1.0, 2.0]]}}),
        json.dumps({"a": {**GOOD, "gram": [[1.0, "x"], [1.0, 1.0]]}}),
        json.dumps({"a": {**GOOD, "gram": [[1.0, 1.0], [1.0, float("nan")]]}}),
        json.dumps({"a": {**GOOD, "gram": [[1.0, 1.0], [1.0, -1.0]]}}),
        json.dumps({"a": {**GOOD, "cross": [[1, 1], [1, 1]]}}),
    ],
)
def test_broken_files_are_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / MAPS_FILE
    path.write_text(json.dumps({"a": GOOD}), encoding="utf-8")
    assert read_fits(path)["a"].channels == 1
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UnreadableCheckpointError, match=MAPS_FILE) as caught:
        read_fits(path)
    assert str(tmp_path) not in str(caught.value)
