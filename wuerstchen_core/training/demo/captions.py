"""Captions of drawn scenes, in many wordings."""

import random
import re

from .scenes import COLORS, PLACES, SHAPES, SIZES, Attributes, all_attributes

_SIZES = {"small": ("small", "little", "tiny"), "large": ("large", "big", "huge")}

_SHAPES = {
    "circle": ("circle", "disc", "dot"),
    "square": ("square", "box"),
    "triangle": ("triangle",),
    "star": ("star", "five-pointed star"),
    "heart": ("heart", "heart shape"),
    "ring": ("ring", "hoop", "donut"),
}

# {} stands for the place's own words: "top left", "left", …
_SIDE_PHRASES = ("on the {}", "on the {} side", "at the {}", "to the {}")
_EDGE_PHRASES = ("at the {}", "near the {}", "at the very {}", "close to the {}")
_CORNER_PHRASES = ("in the {}", "in the {} corner", "at the {}", "near the {} corner")
_CENTER_PHRASES = ("in the center", "in the middle", "at the center", "right in the middle")

_TEMPLATES = (
    "a {size} {color} {shape} {place} on a {background} background",
    "a {size} {color} {shape} on a {background} background, {place}",
    "a {color} {shape}, {size}, {place}, with a {background} background",
    "{place} a {size} {color} {shape} on {background}",
    "{place} there is a {size} {color} {shape}, the background is {background}",
    "there is a {size} {color} {shape} {place} of a {background} picture",
    "a {background} background with a {size} {color} {shape} {place}",
    "a {background} picture with a {size} {color} {shape} {place}",
    "a {background} canvas with one {size} {shape} in {color} {place}",
    "on a {background} background, a {size} {color} {shape} {place}",
    "on {background}, {place}, a {size} {color} {shape}",
    "one {size} {shape} {place}, {color} on {background}",
    "{size} {color} {shape}, {place}, {background} background",
    "{background} background, {size} {color} {shape} {place}",
    "{color} {shape}, {size}, {place}, {background} background",
    "the {shape} is {color} and {size}, it is {place}, the background is {background}",
    "the background is {background}, the {shape} {place} is {size} and {color}",
    "a picture of a {size} {color} {shape} {place} against {background}",
    "a drawing of a {size} {color} {shape} {place} over a {background} background",
    "{size} {shape} {place}, painted {color}, against a {background} backdrop",
    "a {shape} {place} that is {size} and {color}, in front of a {background} background",
    "a {size} {shape} colored {color} {place} on a {background} canvas",
    "a simple picture: {size} {color} {shape} {place}, everything else {background}",
    "{color} {shape} on {background}, {size}, {place}",
    "a {background} scene, a {size} {color} {shape} sits {place}",
    "in {color} on {background}: a {size} {shape} {place}",
)

_TERSE = (
    "a {color} {shape} on {background}",
    "a {size} {color} {shape}",
    "{color} {shape} {place}",
    "a {shape} {place} on a {background} background",
    "a {size} {shape} on {background}",
    "{color} {shape}",
    "a {background} background",
)


def caption(attributes: Attributes, rng: random.Random, terse: bool = False) -> str:
    """A random wording that names all five attributes; a terse one leaves some out."""
    template = rng.choice(_TERSE if terse else _TEMPLATES)
    text = template.format(
        size=rng.choice(_SIZES[attributes.size]),
        color=attributes.color,
        shape=rng.choice(_SHAPES[attributes.shape]),
        place=rng.choice(_place_phrases(attributes.place)),
        background=attributes.background,
    )
    return _with_articles(text)


def canonical(attributes: Attributes) -> str:
    """The plain sentence used for evaluation."""
    place = _place_phrases(attributes.place)[0]
    return _with_articles(
        f"a {attributes.size} {attributes.color} {attributes.shape} {place} "
        f"on a {attributes.background} background"
    )


def vocabulary() -> list[str]:
    """Every word that a caption can hold, sorted."""
    texts = [*_TEMPLATES, *_TERSE, *COLORS, *SHAPES, *SIZES, *PLACES]
    texts += [word for words in (*_SIZES.values(), *_SHAPES.values()) for word in words]
    texts += [phrase for place in PLACES for phrase in _place_phrases(place)]
    texts += ["an", canonical(all_attributes()[0])]
    words = {word for text in texts for word in re.findall(r"[a-z]+", re.sub(r"{\w*}", "", text))}
    return sorted(words)


def _with_articles(text: str) -> str:
    return text.replace("a orange", "an orange")


def _place_phrases(place: str) -> list[str]:
    if place == "center":
        return list(_CENTER_PHRASES)
    if place in ("left", "right"):
        return [phrase.format(place) for phrase in _SIDE_PHRASES]
    if place in ("top", "bottom"):
        return [phrase.format(place) for phrase in _EDGE_PHRASES]
    other = place.replace("top", "upper").replace("bottom", "lower")
    return [phrase.format(words) for words in (place, other) for phrase in _CORNER_PHRASES]
