"""The CLIP text towers: text -> 77 states.

transformers' own `CLIPTextModel` and `CLIPTokenizer`; imported on use, because the import takes
seconds and the rest of the core needs neither.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .offload import at_work
from .residency import device_of

if TYPE_CHECKING:
    from transformers import CLIPTextModel, CLIPTokenizer


class TextEncoder:
    """A tokenizer and the tower it belongs to."""

    def __init__(self, tokenizer: "CLIPTokenizer", network: "CLIPTextModel") -> None:
        self.tokenizer = tokenizer
        self.network = network.eval()

    @property
    def width(self) -> int:
        """Channels of a state: 1280 for CLIP-bigG (Stage C), 1024 for CLIP-H (Stage B)."""
        return self.network.config.hidden_size

    @property
    def length(self) -> int:
        """States of one text: 77."""
        return min(self.tokenizer.model_max_length, self.network.config.max_position_embeddings)

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Tensor:
        """B texts -> B×77×width: the last layer's states after the final norm.

        As in the reference: padded with the tokenizer's own pad token, the attention mask passed,
        padding positions kept. What is longer than the context is cut off.
        """
        tokens = self.tokenizer(
            list(texts),
            padding="max_length",
            max_length=self.length,
            truncation=True,
            return_tensors="pt",
        )
        device = device_of(self.network)
        with at_work(self.network):
            states = self.network(
                input_ids=tokens.input_ids.to(device),
                attention_mask=tokens.attention_mask.to(device),
            )
        return states.last_hidden_state

    def cut_off(self, text: str) -> str:
        """The end of a text that `encode` does not see; "" when all of it fits."""
        tokens = self.tokenizer(text, verbose=False).input_ids
        if len(tokens) <= self.length:
            return ""
        return str(self.tokenizer.decode(tokens[self.length - 1 : -1]))
