"""Text encoding."""

import logging
from typing import Any, ClassVar

from ..wuerstchen_core.text_encoder import TextEncoder
from . import runtime
from .parts import Part

log = logging.getLogger(__name__)

Conditioning = list[list[Any]]  # [[states B×T×D, {options}], …], ComfyUI's own form


class TextEncode:
    """Text -> CONDITIONING."""

    CATEGORY = "Würstchen/text"
    DESCRIPTION = (
        "Encodes a text for one stage. Stage C reads texts of the prior's encoder, Stage B (where "
        "a text is optional) those of the decoder's."
    )
    SEARCH_ALIASES: ClassVar[list[str]] = ["wuerstchen prompt", "clip text encode", "prompt"]
    RETURN_TYPES = ("CONDITIONING",)
    RETURN_NAMES = ("conditioning",)
    OUTPUT_TOOLTIPS = ("The text's states, batch×77×width.",)
    FUNCTION = "encode"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "text_encoder": (
                    "WUERSTCHEN_TEXT_ENCODER",
                    {"tooltip": "The prior's encoder for Stage C, the decoder's for Stage B."},
                ),
                "text": (
                    "STRING",
                    {
                        "multiline": True,
                        "dynamicPrompts": True,
                        "default": "",
                        "tooltip": "What the picture shows, up to 75 tokens; empty means nothing "
                        "in particular.",
                    },
                ),
            }
        }

    def encode(self, text_encoder: Part[TextEncoder], text: str) -> tuple[Conditioning]:
        with runtime.memory_in_words():
            encoder = text_encoder.get()
            lost = encoder.cut_off(text)
            if lost:
                log.warning("the text is too long for CLIP; cut off: %s", lost)
            return ([[encoder.encode([text]).float().cpu(), {}]],)


NODES = {"WuerstchenTextEncode": (TextEncode, "Würstchen Text Encode")}
