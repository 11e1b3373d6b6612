"""What a prompt says: words, how strongly each counts, and where a new chunk begins.

The syntax is ComfyUI's: `(word)` counts 1.1 times, `((word))` 1.21 times, `(word:1.3)` exactly
1.3 times whatever stands around it, `\\(` and `\\)` are the characters themselves, and an
unbalanced parenthesis is one too. `BREAK` begins a new chunk, `embedding:name` stands for a
textual inversion.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from .errors import SettingError

EMPHASIS = 1.1  # of parentheses without a number
DEEPEST = 100  # parentheses inside each other

_BREAK = re.compile(r"\s*\bBREAK\b\s*")
_EMBEDDING = re.compile(r"(?:(?<=\s)|^)embedding:([^\s<\[]+)")
# Stand for escaped parentheses while the others are read: from Unicode's private use area.
_ESCAPED = {"\\(": "\ue000", "\\)": "\ue001"}


@dataclass(frozen=True)
class Words:
    """A part of a prompt whose words count the same."""

    text: str
    weight: float = 1.0


@dataclass(frozen=True)
class Embedding:
    """A textual inversion, by the name in the prompt."""

    name: str
    weight: float = 1.0


Part = Words | Embedding


def parse(prompt: str) -> list[list[Part]]:
    """The parts of a prompt in order, one list for each stretch between BREAKs.

    Raises SettingError for parentheses that are nested too deeply.
    """
    for written, stand_in in _ESCAPED.items():
        prompt = prompt.replace(written, stand_in)
    stretches: list[list[Part]] = [[]]
    for words in _weighted(prompt, 1.0, DEEPEST):
        first, *others = _BREAK.split(words.text)
        stretches[-1] += _parts(first, words.weight)
        stretches += [list(_parts(text, words.weight)) for text in others]
    return stretches


def embedding_names(prompt: str) -> list[str]:
    """The textual inversions that a prompt calls, as they stand there."""
    return _EMBEDDING.findall(prompt)


def _weighted(text: str, weight: float, deepest: int) -> Iterator[Words]:
    if deepest == 0:
        raise SettingError(
            f"this prompt has parentheses in more than {DEEPEST} others; write a weight as "
            "(word:1.3)."
        )
    for group in _groups(text):
        if len(group) > 1 and group[0] == "(" and group[-1] == ")":
            inner, number = _number_behind(group[1:-1])
            own = weight * EMPHASIS if number is None else number
            yield from _weighted(inner, own, deepest - 1)
        else:
            yield Words(group, weight)


def _groups(text: str) -> Iterator[str]:
    """Cuts a text before each outermost "(" and behind the ")" that closes it."""
    start, depth = 0, 0
    for place, character in enumerate(text):
        if character == "(":
            if depth == 0:
                yield text[start:place]
                start = place
            depth += 1
        elif character == ")":
            depth -= 1  # below 0 for one that closes nothing, which the next "(" makes up for
            if depth == 0:
                yield text[start : place + 1]
                start = place + 1
    yield text[start:]


def _number_behind(text: str) -> tuple[str, float | None]:
    """`word:1.3` -> ("word", 1.3); the text and None where no number is behind a colon."""
    word, _, number = text.rpartition(":")
    try:
        weight = float(number)
    except ValueError:
        return text, None
    return (word, weight) if word and math.isfinite(weight) else (text, None)


def _parts(text: str, weight: float) -> Iterator[Part]:
    for written, stand_in in _ESCAPED.items():
        text = text.replace(stand_in, written[1])
    start = 0
    for found in _EMBEDDING.finditer(text):
        yield from _words(text[start : found.start()], weight)
        yield Embedding(found[1], weight)
        start = found.end()
    yield from _words(text[start:], weight)


def _words(text: str, weight: float) -> Iterator[Part]:
    if text.strip():
        yield Words(text, weight)
