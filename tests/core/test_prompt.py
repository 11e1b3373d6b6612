"""What a prompt says."""

import pytest

from comfyui_wuerstchen.wuerstchen_core.errors import SettingError
from comfyui_wuerstchen.wuerstchen_core.prompt import Embedding, Words, parse


def flat(prompt):
    """(text or name, weight) of each part, of a prompt without BREAK."""
    (parts,) = parse(prompt)
    return [
        (part.text.strip() if isinstance(part, Words) else part.name, pytest.approx(part.weight))
        for part in parts
    ]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a red star", [("a red star", 1)]),
        ("a (red) star", [("a", 1), ("red", 1.1), ("star", 1)]),
        ("((red)) star", [("red", 1.21), ("star", 1)]),
        ("(red:1.5) star", [("red", 1.5), ("star", 1)]),
        ("(a (red:1.3) star:0.5)", [("a", 0.5), ("red", 1.3), ("star", 0.5)]),
        ("((red) star:2)", [("red", 2.2), ("star", 2)]),
        ("(red:-0.5)", [("red", -0.5)]),
        ("(red:x) (:2) (red:inf)", [("red:x", 1.1), (":2", 1.1), ("red:inf", 1.1)]),
        (r"a \(red\) star", [("a (red) star", 1)]),
        (r"(red\):2)", [("red)", 2)]),
        ("a (red star", [("a", 1), ("(red star", 1)]),
        ("a red) (star", [("a red) (star", 1)]),
        ("((red)", [("(red", 1.1)]),
        ("()", []),
        ("", []),
    ],
)
def test_weights(prompt, expected):
    assert flat(prompt) == expected


def test_breaks():
    assert parse("a BREAK (b BREAK c:2), BREAKING") == [
        [Words("a")],
        [Words("b", 2.0)],
        [Words("c", 2.0), Words(", BREAKING")],
    ]


def test_embeddings():
    assert parse("a embedding:one, (embedding:folder/two.pt:1.5) embedding:three<x> b") == [
        [
            Words("a "),
            Embedding("one,"),
            Embedding("folder/two.pt", 1.5),
            Embedding("three"),
            Words("<x> b"),
        ]
    ]
    assert parse("notembedding:one") == [[Words("notembedding:one")]]


def test_too_many_parentheses():
    with pytest.raises(SettingError, match="parentheses in more than 100 others"):
        parse("(" * 101 + "a" + ")" * 101)
    assert flat("(" * 5000 + "a")[0][1] == 1
