"""The drawn data set of the demo checkpoint: scenes, captions, tokenizer and pixel checker."""

import random
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPTokenizer

from comfyui_wuerstchen.wuerstchen_core.training.demo import captions, checker, tokenizer
from comfyui_wuerstchen.wuerstchen_core.training.demo.scenes import (
    COLORS,
    Attributes,
    all_attributes,
    attributes_of,
    class_indices,
    coverage,
    draw,
    is_held_out,
    sample_scenes,
)

NAMES = ("background", "shape", "color", "size", "place")
SCENES = 320
PLACE_WORDS = {
    "center": {"center", "middle"},
    "left": {"left"},
    "right": {"right"},
    "top": {"top", "upper"},
    "bottom": {"bottom", "lower"},
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def truth() -> tuple[Tensor, list[Attributes]]:
    """Pictures of held-out combinations and what they show."""
    scenes = sample_scenes(SCENES, generator(), held_out=True)
    return draw(scenes, 256), attributes_of(scenes.classes)


@pytest.fixture(scope="module")
def clip_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> CLIPTokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.build_tokenizer(folder)
    return CLIPTokenizer.from_pretrained(folder)


def test_every_legal_combination_once() -> None:
    combinations = all_attributes()
    assert len(set(combinations)) == len(combinations) == 8 * 7 * 6 * 2 * 9
    assert all(a.color != a.background for a in combinations)
    assert attributes_of(class_indices(combinations)) == combinations


def test_a_tenth_is_held_out_and_never_drawn_for_training() -> None:
    share = sum(map(is_held_out, all_attributes())) / len(all_attributes())
    assert 0.08 < share < 0.12
    for held_out in (False, True):
        drawn = attributes_of(sample_scenes(500, generator(), held_out=held_out).classes)
        assert all(is_held_out(a) == held_out for a in drawn)


def test_held_out_does_not_depend_on_the_process() -> None:
    held_out = [a for a in all_attributes() if is_held_out(a)]
    assert len(held_out) == 600
    assert held_out[0] == Attributes("red", "circle", "orange", "small", "top right")


def test_same_seed_same_scenes() -> None:
    one, two = (draw(sample_scenes(4, generator(9)), 64) for _ in range(2))
    assert torch.equal(one, two)


def test_objects_are_wholly_in_the_frame() -> None:
    mask = coverage(sample_scenes(600, generator(1)), 128)
    assert mask.shape == (600, 1, 128, 128)
    for edge in (mask[..., 0, :], mask[..., -1, :], mask[..., 0], mask[..., -1]):
        assert edge.max() == 0
    assert mask.mean(dim=(1, 2, 3)).min() > 0.02


def test_a_small_drawing_is_the_large_one_downsampled() -> None:
    scenes = sample_scenes(24, generator(2))
    fine = F.interpolate(draw(scenes, 1024), size=(128, 128), mode="area")
    assert (draw(scenes, 128) - fine).abs().mean() < 1e-3


def blur(pictures: Tensor, sigma: float) -> Tensor:
    """Gaussian blur, sigma in pixels."""
    reach = int(4 * sigma)
    weight = torch.exp(-torch.arange(-reach, reach + 1).square() / (2 * sigma**2))
    weight = (weight / weight.sum())[None, None, None].expand(3, 1, 1, -1)
    for kernel, pad in ((weight, (reach, reach, 0, 0)), (weight.mT, (0, 0, reach, reach))):
        pictures = F.conv2d(F.pad(pictures, pad, mode="replicate"), kernel, groups=3)
    return pictures


def noisy(pictures: Tensor) -> Tensor:
    return (pictures + 0.05 * torch.randn(pictures.shape, generator=generator(3))).clamp(0, 1)


def test_checker_reads_the_truth(truth: tuple[Tensor, list[Attributes]]) -> None:
    pictures, attributes = truth
    assert min(checker.score(checker.check(pictures), attributes).values()) >= 0.99


@pytest.mark.parametrize("spoil", [noisy, lambda p: blur(p, 2), lambda p: noisy(blur(p, 2))])
def test_checker_reads_spoilt_pictures(spoil, truth: tuple[Tensor, list[Attributes]]) -> None:
    pictures, attributes = truth
    readings = checker.check(spoil(pictures[:160]))
    assert min(checker.score(readings, attributes[:160]).values()) >= 0.97


def test_checker_accepts_no_mismatch(truth: tuple[Tensor, list[Attributes]]) -> None:
    pictures, attributes = truth
    rng, combinations = random.Random(0), all_attributes()
    others = []
    for a in attributes:
        other = a
        while any(getattr(other, name) == getattr(a, name) for name in NAMES):
            other = rng.choice(combinations)
        others.append(other)
    assert set(checker.score(checker.check(pictures), others).values()) == {0.0}


def test_checker_sees_nothing_where_nothing_is() -> None:
    red = torch.tensor(COLORS["red"])[None, :, None, None].expand(1, 3, 64, 64)
    assert checker.check(red) == [checker.Reading("red", None, None, None, None)]
    confetti = torch.rand(4, 3, 256, 256, generator=generator(4))
    assert all(reading.shape is None for reading in checker.check(confetti))


def test_score_counts_each_attribute() -> None:
    wanted = Attributes("red", "star", "blue", "small", "left")
    almost = checker.Reading("red", "star", "blue", "small", None)
    shares = checker.score([almost], [wanted])
    assert shares == {**dict.fromkeys(NAMES, 1.0), "place": 0.0, "all": 0.0}


def test_a_caption_names_all_attributes() -> None:
    rng = random.Random(0)
    for a in rng.sample(all_attributes(), 1000):
        for text in (captions.caption(a, rng), captions.canonical(a)):
            words = re.findall("[a-z]+", text)
            assert text == text.lower() and len(text.split()) <= 25
            assert {a.color, a.background} <= set(words)
            assert any(word in words for word in captions._SIZES[a.size])
            assert any(shape in text for shape in captions._SHAPES[a.shape])
            assert all(PLACE_WORDS[part] & set(words) for part in a.place.split())


def test_wordings_vary_and_use_known_words() -> None:
    rng, vocabulary = random.Random(0), set(captions.vocabulary())
    a = Attributes("blue", "star", "red", "large", "top left")
    texts = {captions.caption(a, rng, terse=i % 10 == 0) for i in range(1000)}
    assert len(texts) > 400
    assert {word for text in texts for word in re.findall("[a-z]+", text)} <= vocabulary


def test_canonical_captions_are_distinct() -> None:
    assert len({captions.canonical(a) for a in all_attributes()}) == len(all_attributes())


def test_tokenizer_files_are_reproducible(tmp_path: Path) -> None:
    for name in ("one", "two"):
        tokenizer.build_tokenizer(tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert {"merges.txt", "tokenizer_config.json", "vocab.json"} < set(files)
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_each_caption_word_is_one_token(clip_tokenizer: CLIPTokenizer) -> None:
    bos, eos = clip_tokenizer.bos_token_id, clip_tokenizer.eos_token_id
    for word in captions.vocabulary():
        first, _, last = clip_tokenizer(word).input_ids
        assert (first, last) == (bos, eos)
        assert clip_tokenizer.decode(clip_tokenizer(word).input_ids[1:-1]) == word


def test_padding_fills_the_context_with_the_end_token(clip_tokenizer: CLIPTokenizer) -> None:
    text = captions.canonical(all_attributes()[0])
    ids = clip_tokenizer(text, padding="max_length").input_ids
    words = len(text.split())
    assert clip_tokenizer.model_max_length == len(ids) == tokenizer.CONTEXT
    assert clip_tokenizer.pad_token_id == clip_tokenizer.eos_token_id
    assert set(ids[words + 1 :]) == {clip_tokenizer.eos_token_id}
    assert clip_tokenizer.decode(ids, skip_special_tokens=True) == text


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=12))
def test_any_text_has_known_tokens(clip_tokenizer: CLIPTokenizer, text: str) -> None:
    """The unknown token is the end token, so there must be exactly one: the end."""
    ids = clip_tokenizer(text).input_ids
    assert len(ids) > 2
    assert ids.count(clip_tokenizer.eos_token_id) == 1
    assert "</w>" not in clip_tokenizer.decode(ids)
