"""Stage C latents mixed, laid over each other, and enlarged: the arithmetic."""

import pytest
import torch

from comfyui_wuerstchen.wuerstchen_core.errors import SettingError, WireError
from comfyui_wuerstchen.wuerstchen_core.geometry import Geometry, on_canvas
from comfyui_wuerstchen.wuerstchen_core.mixing import METHODS, collage, enlarge, mix
from comfyui_wuerstchen.wuerstchen_core.stage_c import from_embedding


def latent(seed, batch=1, height=6, width=6):
    return torch.randn(batch, 16, height, width, generator=torch.Generator().manual_seed(seed)) * 9


ONE, TWO, THREE = latent(1), latent(2), latent(3)


@pytest.mark.parametrize("method", METHODS)
def test_what_alone_has_a_weight_comes_out_as_it_is(method):
    assert torch.equal(mix([ONE, TWO, THREE], [0, 0.3, 0], method), TWO)


@pytest.mark.parametrize("method", METHODS)
def test_only_the_shares_count(method):
    found = mix([ONE, TWO, THREE], [1, 2, 1], method)
    assert torch.allclose(found, mix([ONE, TWO, THREE], [10, 20, 10], method), atol=1e-5)
    assert not torch.allclose(found, mix([ONE, TWO, THREE], [1, 1, 1], method), atol=0.1)


def test_the_weighted_mean():
    found = mix([ONE, TWO, THREE], [1, 2, 5], "weighted mean")
    assert torch.allclose(found, (ONE + 2 * TWO + 5 * THREE) / 8, atol=1e-5)


def test_slerp_turns_each_cell_and_keeps_its_length():
    a, b = from_embedding(ONE), from_embedding(TWO)
    third = from_embedding(mix([ONE, TWO], [2, 1], "slerp"))
    lengths = [x.norm(dim=1) for x in (a, b, third)]
    assert torch.allclose(lengths[2], lengths[0] * 2 / 3 + lengths[1] / 3, atol=1e-4)

    def angle(x, y):
        return torch.nn.functional.cosine_similarity(x, y).acos()

    assert torch.allclose(angle(a, third), angle(a, b) / 3, atol=1e-3)
    assert torch.allclose(angle(third, b), angle(a, b) * 2 / 3, atol=1e-3)


def test_slerp_of_cells_that_point_the_same_or_the_opposite_way():
    origin = torch.full_like(ONE, -1.0)  # where the length is 0
    for other in (ONE, 2 * ONE + 1, -ONE - 2, origin):
        found = mix([ONE, other], [1, 1], "slerp")
        assert found.isfinite().all()
        if other is not origin and not torch.equal(other, -ONE - 2):
            assert torch.allclose(found, (ONE + other) / 2, atol=1e-3)


def test_one_picture_mixes_with_each_of_a_batch():
    many = latent(4, batch=3)
    found = mix([ONE, many], [1, 1], "weighted mean")
    assert torch.allclose(found, (ONE + many) / 2, atol=1e-5)
    assert torch.equal(mix([ONE, many], [1, 0], "slerp"), ONE.expand(3, -1, -1, -1))


def test_what_cannot_be_mixed_is_said():
    for weights in ([0, 0], [1, -1]):
        with pytest.raises(SettingError, match="are no shares"):
            mix([ONE, TWO], weights, "slerp")
    with pytest.raises(WireError, match=r"\(1, 16, 6, 6\) and \(1, 16, 6, 9\)"):
        mix([ONE, latent(2, width=9)], [1, 1], "slerp")
    with pytest.raises(WireError, match="as many of each"):
        mix([latent(1, batch=2), latent(2, batch=3)], [1, 1], "slerp")


def test_a_collage_takes_each_place_from_its_own():
    cover = torch.zeros(1, 1, 6, 6)
    cover[..., 3:] = 1
    cover[..., 2] = 0.25
    found = collage(ONE, TWO, cover)
    assert torch.equal(found[..., :2], ONE[..., :2]) and torch.equal(found[..., 3:], TWO[..., 3:])
    assert torch.allclose(found[..., 2], 0.75 * ONE[..., 2] + 0.25 * TWO[..., 2], atol=1e-5)
    with pytest.raises(WireError, match="pictures of one size"):
        collage(ONE, latent(2, width=9), cover)


def ramp(geometry):
    """A latent whose channels 0 and 1 say where in the picture a cell lies, 0 to 1."""
    rows = torch.linspace(0, 1, geometry.height).reshape(1, 1, -1, 1)
    columns = torch.linspace(0, 1, geometry.width).reshape(1, 1, 1, -1)
    places = torch.cat(
        [x.expand(1, 1, geometry.height, geometry.width) for x in (rows, columns)], 1
    )
    whole = torch.nn.functional.adaptive_avg_pool2d(on_canvas(places, geometry), geometry.stage_c)
    return torch.cat([whole, torch.zeros(1, 14, *geometry.stage_c)], 1)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (Geometry(256, 256), Geometry(512, 512)),
        (Geometry(256, 256), Geometry(500, 300)),
        (Geometry(200, 300), Geometry(800, 1000)),
        (Geometry(512, 384), Geometry(768, 400)),
    ],
)
def test_what_lies_somewhere_in_the_picture_lies_there_in_the_larger_one(old, new):
    found, expected = enlarge(ramp(old), old, new), ramp(new)
    assert found.shape == (1, 16, *new.stage_c)
    # A canvas's margin and a picture's border are averaged in cells, which are coarser in the old.
    assert (found - expected)[:, :, 2:-2, 2:-2].abs().max() < 0.03


def test_the_same_size_changes_nothing():
    old = Geometry(256, 256)
    assert torch.allclose(enlarge(ONE, old, old), ONE, atol=1e-4)
