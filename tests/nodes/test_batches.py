"""Seeds and texts of their own in a batch, and grids over two settings."""

import pytest
import torch

from comfyui_wuerstchen.nodes.latent import seeds_of
from comfyui_wuerstchen.wuerstchen_core.errors import SettingError, WireError

from .demo import call, decoder, empty, encode, prior


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("1, 5, 42-45", [1, 5, 42, 43, 44, 45]),
        (" 7 ", [7]),
        ("3;1\n2 2", [3, 1, 2, 2]),
        ("5 - 6, 18446744073709551615", [5, 6, 2**64 - 1]),
    ],
)
def test_seeds(text, seeds):
    assert seeds_of(text) == seeds


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no seed here"),
        ("1, two", "'two' is no seed"),
        ("-1", "'-1' is no seed"),
        ("5-3", "'5-3' is no range"),
        ("18446744073709551616", "no range of seeds"),
        ("1-2-3", "'1-2-3' is no seed"),
        ("0-99999999999", "more than 4096 seeds"),
    ],
)
def test_what_is_no_seed_is_said(text, said):
    with pytest.raises(SettingError, match=said):
        seeds_of(text)


def test_each_picture_of_a_batch_has_its_own_seed(parts):
    latent, count = call("WuerstchenSeedList", samples=empty(), seeds="9, 2-3")
    assert count == 3 and latent["samples"].shape == (3, 16, 6, 6)
    batch = decoder(parts, prior(parts, latent, seed=77), seed=77)["samples"]
    for number, seed in enumerate((9, 2, 3)):
        alone = decoder(parts, prior(parts, empty(), seed=seed), seed=seed)["samples"]
        assert torch.allclose(batch[number : number + 1], alone, atol=1e-4)


def test_seeds_for_a_batch_that_is_there():
    latent, _ = call("WuerstchenSeedList", samples=empty(batch_size=2), seeds="1-2")
    assert len(latent["samples"]) == 2
    with pytest.raises(WireError, match="3 seeds for 2 latents"):
        call("WuerstchenSeedList", samples=empty(batch_size=2), seeds="1-3")


def test_each_picture_of_a_batch_has_its_own_text(parts):
    lines = ["a red star", "", "a small green heart on a white background BREAK", "a (blue) ring"]
    conditioning, count = call(
        "WuerstchenTextEncodeBatch",
        text_encoder=[parts["prior_text_encoder"]],
        texts=["\n".join(lines[:3]), lines[3]],
    )
    texts = [line for line in lines if line]
    assert count == 3
    for states, text in zip(conditioning[0][0], texts, strict=True):
        torch.testing.assert_close(states, encode(parts, text)[0][0][0], rtol=1e-5, atol=1e-6)
    batch = prior(parts, empty(batch_size=3), positive=conditioning)["samples"]
    third = prior(parts, empty(), seed=3, positive=encode(parts, texts[2]))["samples"]
    assert torch.allclose(batch[2:], third, atol=1e-4)
    with pytest.raises(SettingError, match="no text here"):
        call("WuerstchenTextEncodeBatch", text_encoder=[parts["prior_text_encoder"]], texts=[" "])


def pairs(**changes):
    values = {"x_values": "a\n\nb", "x_kind": "text", "y_values": "1\n2\n3"}
    return call("WuerstchenXYValues", **{**values, "y_kind": "whole number", **changes})


def test_every_pair_of_values():
    x, y, columns, rows = pairs()
    assert list(zip(x, y, strict=True)) == [
        ("a", 1),
        ("b", 1),
        ("a", 2),
        ("b", 2),
        ("a", 3),
        ("b", 3),
    ]
    assert (columns, rows) == ("a\nb", "1\n2\n3")
    assert pairs(y_values="0.5\n1e-3", y_kind="number")[1] == [0.5, 0.5, 0.001, 0.001]
    assert pairs(x_values="")[0] == ["", "", ""]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"y_values": "1.5"}, "'1.5' is no whole number"),
        ({"x_kind": "number"}, "'a' is no number"),
        ({"x_kind": "number", "x_values": "nan"}, "'nan' is no number"),
        ({"y_values": "1\n" * 3000}, "2 columns and 3000 rows are more than 4096"),
    ],
)
def test_values_that_do_not_fit(changes, said):
    with pytest.raises(SettingError, match=said):
        pairs(**changes)


def test_pictures_of_all_pairs_in_one():
    images = [torch.full((1, 40, 50, 4), value) for value in (0.0, 0.2, 0.4, 0.6)]
    image = call("WuerstchenXYGrid", images=images, x_labels=["a\nb"], y_labels=["1\n2"])
    assert image.shape[0] == 1 and image.shape[-1] == 3
    assert {round(v, 1) for v in image[0, -20, 40:, 0].tolist()} >= {0.4, 0.6}
