"""Texts of any length, with weights and textual inversions, against transformers."""

import pytest
import torch
from safetensors.torch import save_file

from comfyui_wuerstchen.wuerstchen_core.embeddings import Embeddings
from comfyui_wuerstchen.wuerstchen_core.errors import SettingError, UnreadableCheckpointError
from comfyui_wuerstchen.wuerstchen_core.text_encoder import packed

from ..checkpoints.tiny import text_encoder

WIDTH = 32
PLAIN = "a large red star on a blue background"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    torch.manual_seed(0)
    return text_encoder(WIDTH, tmp_path_factory.mktemp("tokenizer"))


@torch.no_grad()
def reference(encoder, text):
    """As diffusers' pipelines encode a text that fits."""
    tokens = encoder.tokenizer(
        text, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
    )
    return encoder.network(**tokens).last_hidden_state


def ids(encoder, text):
    return encoder.tokenizer(text, add_special_tokens=False).input_ids


WORDS = (PLAIN.split() * 20)[:75]


@pytest.mark.parametrize("text", ["", PLAIN, "Ünknown, words: x" * 3, " ".join(WORDS)])
def test_a_plain_text_is_the_references(encoder, text):
    assert torch.equal(encoder.encode([text]), reference(encoder, text))


def test_plain_texts_in_a_batch(encoder):
    texts = [PLAIN, "", "a small green heart"]
    together = encoder.encode(texts)
    assert torch.equal(together, reference(encoder, texts))


def test_a_weight_of_one_changes_nothing(encoder):
    plain = encoder.encode([PLAIN])
    assert torch.equal(encoder.encode(["a large (red star:1.0) on a blue background"]), plain)


def test_weights_scale_the_distance_to_an_empty_text(encoder):
    plain, empty = reference(encoder, PLAIN), reference(encoder, "")
    found = encoder.encode(["a large (red star:1.5) on a (blue:0) background"])
    expected = plain.clone()
    expected[:, 3:5] = empty[:, 3:5] + 1.5 * (plain - empty)[:, 3:5]  # behind the start token
    expected[:, 7] = empty[:, 7]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(found[:, 5:7], plain[:, 5:7])


def test_a_long_text_goes_on_in_further_chunks(encoder):
    words = (PLAIN.split() * 30)[:160]
    found = encoder.encode([" ".join(words)])
    chunks = [reference(encoder, " ".join(words[at : at + 75])) for at in (0, 75, 150)]
    assert found.shape == (1, 231, WIDTH)
    torch.testing.assert_close(found, torch.cat(chunks, 1), rtol=1e-5, atol=1e-6)


def test_a_word_is_not_torn(encoder):
    long_word = "unpronounceable"
    assert len(ids(encoder, long_word)) > 5
    first, second = " ".join(WORDS[:72]), f"{long_word} star " + " ".join(WORDS[:8])
    found = encoder.encode([f"{first} {second}"])
    expected = torch.cat([reference(encoder, first), reference(encoder, second)], 1)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_what_fits_nowhere_is_torn():
    def group(length):
        return [(token, 1.0) for token in range(length)]

    chunks = packed([group(3), group(12), group(2), group(5)], 5)
    assert [len(chunk) for chunk in chunks] == [5, 5, 5, 2, 5]
    assert sum(chunks[:3], []) == group(3) + group(12)


def test_break_begins_a_chunk_and_shorter_texts_are_filled_up(encoder):
    found = encoder.encode(["a red star BREAK on blue", PLAIN])
    assert found.shape == (2, 154, WIDTH)
    parts = [reference(encoder, text) for text in ("a red star", "on blue", PLAIN, "")]
    expected = torch.cat([torch.cat(parts[:2], 1), torch.cat(parts[2:], 1)])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_many_texts_and_texts_without_end(encoder):
    colors = ("red", "blue", "green")
    texts = [f"a {colors[i % 3]} star" for i in range(150)]
    found = encoder.encode(texts)
    torch.testing.assert_close(found, reference(encoder, texts), rtol=1e-5, atol=1e-6)
    with pytest.raises(SettingError, match="101 chunks of 75 tokens; write one of at most 100"):
        encoder.encode(["star " * 75 * 100 + "star"])


# Textual inversions.


def vectors(count, seed=1, width=WIDTH):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def in_words(encoder, token):
    """The vector that a word of one token has."""
    (found,) = ids(encoder, token)
    return encoder.network.get_input_embeddings().weight[found].detach().clone()


def test_an_embedding_of_words_reads_like_the_words(encoder, tmp_path):
    taught = torch.stack([in_words(encoder, word) for word in ("red", "star")])
    save_file({"emb_params": taught}, tmp_path / "style.safetensors")
    find = Embeddings([tmp_path])
    plain = encoder.encode([PLAIN])
    found = encoder.encode(["a large embedding:style on a blue background"], find)
    torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-6)
    weighted = encoder.encode(["a large (embedding:style:1.4), on blue"], find)
    expected = encoder.encode(["a large (red star:1.4), on blue"])
    torch.testing.assert_close(weighted, expected, rtol=1e-5, atol=1e-6)
    behind = encoder.encode(["embedding:style, on blue"], find)
    torch.testing.assert_close(behind, encoder.encode(["red star, on blue"]), rtol=1e-5, atol=1e-6)


def test_an_embedding_in_a_second_chunk_of_a_batch(encoder, tmp_path):
    save_file({"x": in_words(encoder, "star")}, tmp_path / "star.safetensors")
    texts = ["blue BREAK a {}", "a {} BREAK red"]
    found = encoder.encode([t.format("embedding:star") for t in texts], Embeddings([tmp_path]))
    expected = encoder.encode([t.format("star") for t in texts])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(encoder.encode([PLAIN]), reference(encoder, PLAIN))  # and not after it


BUNDLE = "bundle_emb.mine.string_to_param.*"
FORMS = {
    "clip_g": {"clip_l": vectors(3, 2, 24), "clip_g": vectors(3)},
    "emb_params": {"emb_params": vectors(3)},
    "string_to_param": {"string_to_param": {"*": vectors(3)}, "name": "mine", "step": 5},
    "diffusers": {"<mine>": vectors(3)[0]},
    "onetrainer": {"prior": vectors(3)},
    "list": [{"a": vectors(2, 2, 24)}, {"b": vectors(3)}],
    "lora": {
        "lora_unet.weight": vectors(4, 2),
        BUNDLE: vectors(3),
        "bundle_emb.a.clip_l": vectors(2, 2, 24),
    },
}


# safetensors holds nothing but tensors by name.
FILES = [(form, suffix) for form in FORMS for suffix in (".pt", ".bin")] + [
    (form, ".safetensors") for form in FORMS if form not in ("list", "string_to_param")
]


@pytest.mark.parametrize(("form", "suffix"), FILES)
def test_the_forms_that_trainers_write(tmp_path, form, suffix):
    save = save_file if suffix == ".safetensors" else torch.save
    save(FORMS[form], tmp_path / f"mine{suffix}")
    found = Embeddings([tmp_path])("mine", WIDTH)
    assert torch.equal(found, vectors(3)[:1] if form == "diffusers" else vectors(3))


def test_where_embeddings_are_found(tmp_path):
    inner, folder = tmp_path / "embeddings" / "style", tmp_path / "embeddings"
    inner.mkdir(parents=True)
    save_file({"x": vectors(1)}, inner / "one.safetensors")
    save_file({"x": vectors(2)}, tmp_path / "outside.safetensors")
    find = Embeddings([tmp_path / "none", folder])
    for name in ("one", "one.safetensors", "style/one"):
        assert len(find(name, WIDTH)) == 1
    for name in ("../outside", str(tmp_path / "outside"), "style", "two", "a" * 5000, "a\0b", ".."):
        assert find(name, WIDTH) is None
    assert find.names() == ["style/one"]


def test_what_does_not_fit_or_is_not_there_is_left_out_with_a_warning(encoder, tmp_path, warnings):
    save_file({"clip_l": vectors(2, width=24)}, tmp_path / "other.safetensors")
    text = "a large red star embedding:{}, on a blue background"
    for name, said in (("other", "width 32"), ("none", "does not exist")):
        found = encoder.encode([text.format(name)], Embeddings([tmp_path]))
        expected = encoder.encode(["a large red star, on a blue background"])
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        assert f"embedding:{name} " in warnings()[-1] and said in warnings()[-1]


def test_a_damaged_embedding_is_an_error(encoder, tmp_path):
    (tmp_path / "broken.pt").write_bytes(b"not tensors")
    with pytest.raises(UnreadableCheckpointError, match="broken.pt"):
        encoder.encode(["embedding:broken"], Embeddings([tmp_path]))
