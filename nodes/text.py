"""Text encoding."""

from collections.abc import Sequence
from typing import Any, ClassVar

from ..wuerstchen_core.embeddings import Embeddings
from ..wuerstchen_core.errors import SettingError
from ..wuerstchen_core.prompt import embedding_names
from ..wuerstchen_core.text_encoder import TextEncoder
from . import runtime, values
from .parts import Part

Conditioning = list[list[Any]]  # [[states B×T×D, {options}], …], ComfyUI's own form

CATEGORY = "Würstchen/text"
_ENCODER = (
    "WUERSTCHEN_TEXT_ENCODER",
    {"tooltip": "The prior's encoder for Stage C, the decoder's for Stage B."},
)


def _encoded(text_encoder: Part[TextEncoder], texts: Sequence[str]) -> Conditioning:
    """One conditioning that holds each text's states."""
    with runtime.memory_in_words():
        find = Embeddings(runtime.embedding_folders())
        return [[text_encoder.get().encode(texts, find).float().cpu(), {}]]


def _stamp(texts: Sequence[str]) -> str:
    """Another word whenever an embedding that these texts name has come or changed."""
    find = Embeddings(runtime.embedding_folders())
    return repr([find.stamp(name) for one in texts for name in embedding_names(one)])


class TextEncode:
    """Text -> CONDITIONING."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Encodes a text for one stage. Stage C reads texts of the prior's encoder, Stage B (where "
        "a text is optional) those of the decoder's."
    )
    SEARCH_ALIASES: ClassVar[list[str]] = ["wuerstchen prompt", "clip text encode", "prompt"]
    RETURN_TYPES = ("CONDITIONING",)
    RETURN_NAMES = ("conditioning",)
    OUTPUT_TOOLTIPS = ("The text's states, batch×77×width; 77 more for each further 75 tokens.",)
    FUNCTION = "encode"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "text_encoder": _ENCODER,
                "text": (
                    "STRING",
                    {
                        "multiline": True,
                        "dynamicPrompts": True,
                        "default": "",
                        "tooltip": "What the picture shows, of any length; empty means nothing in "
                        "particular. (word:1.2) counts more, BREAK begins a new chunk of 75 "
                        "tokens, embedding:name calls a textual inversion.",
                    },
                ),
            }
        }

    def encode(self, text_encoder: Part[TextEncoder], text: str) -> tuple[Conditioning]:
        return (_encoded(text_encoder, [values.text("text", text)]),)

    @classmethod
    def IS_CHANGED(cls, text: str | None = None, **_: Any) -> str:
        return _stamp([text] if isinstance(text, str) else [])


class TextEncodeBatch:
    """A text for each picture of a batch -> CONDITIONING."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Encodes one text a line, each for one picture of the batch: the first line for the first "
        "picture, and so on. A list of texts that is wired counts like so many lines."
    )
    SEARCH_ALIASES: ClassVar[list[str]] = ["prompt list", "batch prompts", "prompt per picture"]
    INPUT_IS_LIST = True
    RETURN_TYPES = ("CONDITIONING", "INT")
    RETURN_NAMES = ("conditioning", "count")
    OUTPUT_TOOLTIPS = (
        "The texts' states, count×tokens×width.",
        "How many texts there are; wire it to batch_size.",
    )
    FUNCTION = "encode"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "text_encoder": _ENCODER,
                "texts": (
                    "STRING",
                    {
                        "multiline": True,
                        "dynamicPrompts": True,
                        "default": "",
                        "tooltip": "One text a line; empty lines are left out. Each is read as in "
                        "Würstchen Text Encode.",
                    },
                ),
            }
        }

    def encode(
        self, text_encoder: list[Part[TextEncoder]], texts: list[str]
    ) -> tuple[Conditioning, int]:
        given = [values.text("texts", one) for one in texts]
        lines = [line for one in given for line in one.splitlines() if line.strip()]
        if not lines:
            raise SettingError("there is no text here; write one a line.")
        return _encoded(text_encoder[0], lines), len(lines)

    @classmethod
    def IS_CHANGED(cls, texts: list[str] | None = None, **_: Any) -> str:
        return _stamp([one for one in texts or [] if isinstance(one, str)])


NODES = {
    "WuerstchenTextEncode": (TextEncode, "Würstchen Text Encode"),
    "WuerstchenTextEncodeBatch": (TextEncodeBatch, "Würstchen Text Encode (Batch)"),
}
