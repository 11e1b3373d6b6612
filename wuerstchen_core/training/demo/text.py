"""Training the two small CLIP text towers: every state after the caption must tell what it said.

The published towers come from contrastive training on two billion pictures. Here the captions'
attributes are known, so the towers learn to name them, at the end token and at every padding
position after it (which sees the whole caption). Those states fill most of the 77 positions that
the stages attend to.
"""

import random
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from .captions import caption
from .configs import DECODER_TEXT, PRIOR_TEXT, TextSize
from .scenes import CLASSES, Attributes, all_attributes, class_indices, is_held_out

BATCH = 32


def new_tower(size: TextSize, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """A CLIP text tower of the given size with random weights."""
    special: dict[str, Any] = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=size.width,
        intermediate_size=size.width * 4,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        max_position_embeddings=tokenizer.model_max_length,
        hidden_act="gelu",
        projection_dim=size.width,
        **special,
    )
    return CLIPTextModel(config)


class _Readers(nn.Module):
    """A tower and one linear reader an attribute."""

    def __init__(self, tower: CLIPTextModel, width: int) -> None:
        super().__init__()
        self.tower = tower
        self.readers = nn.ModuleList(nn.Linear(width, n) for n in CLASSES)


class TextTask:
    """Reads the attributes off every state from the end token on."""

    def __init__(self, tokenizer_folder: Path) -> None:
        self.tokenizer = CLIPTokenizer.from_pretrained(tokenizer_folder)
        towers = {"prior": PRIOR_TEXT, "decoder": DECODER_TEXT}
        self.network = nn.ModuleDict(
            {
                name: _Readers(new_tower(size, self.tokenizer), size.width)
                for name, size in towers.items()
            }
        )
        combinations = all_attributes()
        self.known = [a for a in combinations if not is_held_out(a)]
        self.held_out = random.Random(1).sample([a for a in combinations if is_held_out(a)], 128)

    def loss(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        rng = random.Random(int(torch.randint(2**31, (1,), generator=generator)))
        chosen = rng.choices(self.known, k=BATCH)
        return {
            name: self._errors(readers, chosen, rng).mean()
            for name, readers in self.network.items()
        }

    def probe(self, network: nn.Module) -> dict[str, float]:
        assert isinstance(network, nn.ModuleDict)
        rng = random.Random(2)
        return {
            f"{name}_right": (self._errors(readers, self.held_out, rng) < 0.7).float().mean().item()
            for name, readers in network.items()
        }

    def sheet(self, network: nn.Module) -> Image.Image | None:
        return None

    def _errors(
        self, readers: nn.Module, attributes: list[Attributes], rng: random.Random
    ) -> Tensor:
        """Cross-entropy summed over the attributes, averaged over the states: B."""
        tokens = self.tokenizer(
            [caption(a, rng) for a in attributes], padding="max_length", return_tensors="pt"
        )
        states = readers.tower(**tokens).last_hidden_state  # type: ignore[operator]
        last = tokens.attention_mask.sum(dim=1, keepdim=True) - 1  # the end token
        after = (torch.arange(states.shape[1]) >= last).float()
        total = torch.zeros(len(attributes))
        for reader, truth in zip(readers.readers, class_indices(attributes).T, strict=True):  # type: ignore[arg-type]
            logits = reader(states).transpose(1, 2)
            error = F.cross_entropy(
                logits, truth[:, None].expand(-1, states.shape[1]), reduction="none"
            )
            total = total + (error * after).sum(dim=1) / after.sum(dim=1)
        return total
