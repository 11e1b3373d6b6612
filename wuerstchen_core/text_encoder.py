"""The CLIP text towers: text -> states, 77 for each chunk of 75 tokens.

transformers' own `CLIPTextModel` and `CLIPTokenizer`; imported on use, because the import takes
seconds and the rest of the core needs neither.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .errors import SettingError
from .offload import at_work
from .prompt import Embedding, Words, parse
from .residency import device_of

if TYPE_CHECKING:
    from transformers import CLIPTextModel, CLIPTokenizer

log = logging.getLogger(__name__)

Token = int | Tensor  # an id, or a textual inversion's vector
Weighted = tuple[Token, float]
Chunk = list[Weighted]  # without start, end and padding
# (name, width) -> a textual inversion's vectors n×width; None: there is none of that name.
Lookup = Callable[[str, int], Tensor | None]

WORD_END = "</w>"  # how CLIP's tokens end a word
MOST_CHUNKS = 100  # of one text
AT_ONCE = 64  # chunks that go through the tower together
SHORT = 8  # a part of fewer tokens than this stays together, as in ComfyUI
PUNCTUATION = ",.;:!?"  # behind an embedding's name, unless a file is called so


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
        """States of one chunk: 77."""
        return min(self.tokenizer.model_max_length, self.network.config.max_position_embeddings)

    def encode(self, texts: Sequence[str], embeddings: Lookup = lambda *_: None) -> Tensor:
        """B texts -> B×77n×width: the last layer's states after the final norm.

        texts: as `prompt.parse` reads them. n: the chunks of the longest one; the others are
        filled up with empty chunks. embeddings: finds textual inversions.
        A text of one chunk without weights is encoded as in the reference: padded with the
        tokenizer's own pad token, the attention mask passed, padding positions kept. Weights
        scale how far a state is from that of an empty text.
        A textual inversion that is not found is left out with a warning.
        Raises SettingError for parentheses nested too deeply and for texts of more than
        MOST_CHUNKS, and what `embeddings` raises.
        """
        return self.encode_groups([texts], embeddings)[0]

    @torch.no_grad()
    def encode_groups(
        self, groups: Sequence[Sequence[str]], embeddings: Lookup = lambda *_: None
    ) -> list[Tensor]:
        """`encode` of each group, with a length of its own; all go through the tower together."""
        chunks: list[Chunk] = []
        ends: list[int] = []
        for texts in groups:
            prompts = [self._chunks(text, embeddings) for text in texts]
            count = max(map(len, prompts))
            chunks += [one for prompt in prompts for one in prompt + [[]] * (count - len(prompt))]
            ends.append(len(chunks))
        states = self._weighted(chunks).tensor_split(ends[:-1])
        return [
            part.reshape(len(texts), -1, self.width)
            for part, texts in zip(states, groups, strict=True)
        ]

    def _weighted(self, chunks: Sequence[Chunk]) -> Tensor:
        """N×77×width."""
        if all(weight == 1 for chunk in chunks for _, weight in chunk):
            return self._states(chunks)
        states, empty = self._states([*chunks, []]).split([len(chunks), 1])
        weights = self._weights(chunks).to(states)
        return torch.where(weights == 1, states, (states - empty) * weights + empty)

    def _chunks(self, text: str, embeddings: Lookup) -> list[Chunk]:
        """A text as chunks that fit, at least one."""
        chunks: list[Chunk] = []
        for stretch in parse(text):
            chunks += packed(self._groups(stretch, embeddings), self.length - 2)
        if len(chunks) > MOST_CHUNKS:
            raise SettingError(
                f"this text has {len(chunks)} chunks of {self.length - 2} tokens; write one of at "
                f"most {MOST_CHUNKS}."
            )
        return chunks or [[]]

    def _groups(self, parts: Sequence[Words | Embedding], embeddings: Lookup) -> Iterator[Chunk]:
        """Tokens that belong together: words, short parts, and textual inversions."""
        for part in parts:
            if isinstance(part, Words):
                yield from self._words(part.text, part.weight)
                continue
            vectors, behind = self._embedding(part.name, embeddings)
            yield [(vector, part.weight) for vector in vectors]
            yield from self._words(behind, part.weight)

    def _words(self, text: str, weight: float) -> Iterator[Chunk]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False).input_ids
        if len(ids) < SHORT:
            yield [(token, weight) for token in ids]
            return
        word: Chunk = []
        for token, name in zip(ids, self.tokenizer.convert_ids_to_tokens(ids), strict=True):
            word.append((token, weight))
            if name.endswith(WORD_END):
                yield word
                word = []
        yield word

    def _embedding(self, name: str, find: Lookup) -> tuple[Tensor, str]:
        """Its vectors n×width, and what of the name is text behind it."""
        bare = name.rstrip(PUNCTUATION)
        for called in dict.fromkeys((name, bare)):
            vectors = find(called, self.width)
            if vectors is not None:
                return vectors, name.removeprefix(called)
        log.warning("embedding:%s does not exist and is left out", bare)
        return torch.empty(0, self.width), name.removeprefix(bare)

    def _weights(self, chunks: Sequence[Chunk]) -> Tensor:
        """N×77×1; start, end and padding count 1."""
        weights = torch.ones(len(chunks), self.length, 1)
        for row, chunk in enumerate(chunks):
            weights[row, 1 : 1 + len(chunk), 0] = torch.tensor([weight for _, weight in chunk])
        return weights

    def _states(self, chunks: Sequence[Chunk]) -> Tensor:
        """N×77×width."""
        starts = range(0, len(chunks), AT_ONCE)
        return torch.cat([self._run(chunks[start : start + AT_ONCE]) for start in starts])

    def _run(self, chunks: Sequence[Chunk]) -> Tensor:
        tokenizer: Any = self.tokenizer
        ids = torch.full((len(chunks), self.length), tokenizer.pad_token_id)
        mask = torch.zeros_like(ids)
        for row, chunk in enumerate(chunks):
            # A vector takes the place of whichever id stands there.
            own = [token if isinstance(token, int) else 0 for token, _ in chunk]
            whole = [tokenizer.bos_token_id, *own, tokenizer.eos_token_id]
            ids[row, : len(whole)] = torch.tensor(whole)
            mask[row, : len(whole)] = 1
        device = device_of(self.network)
        with at_work(self.network), self._with_vectors(chunks):
            states = self.network(input_ids=ids.to(device), attention_mask=mask.to(device))
        return states.last_hidden_state

    @contextmanager
    def _with_vectors(self, chunks: Sequence[Chunk]) -> Iterator[None]:
        """Inside, the network's words are those of textual inversions where a chunk has them."""
        if all(isinstance(token, int) for chunk in chunks for token, _ in chunk):
            yield
            return
        left = iter(chunks)  # ComfyUI's towers look up one chunk after the other

        def put(_module: object, _ids: object, words: Tensor) -> Tensor:
            words = words.clone()
            for row in words:
                for place, (token, _) in enumerate(next(left), start=1):
                    if isinstance(token, Tensor):
                        row[place] = token.to(row)
            return words

        hook = self.network.get_input_embeddings().register_forward_hook(put)
        try:
            yield
        finally:
            hook.remove()


def packed(groups: Iterable[Chunk], capacity: int) -> list[Chunk]:
    """Groups of tokens -> chunks of at most `capacity`; a group is torn only where none could
    hold it."""
    chunks: list[Chunk] = [[]]
    for group in groups:
        while group:
            left = capacity - len(chunks[-1])
            if not left or left < len(group) <= capacity:
                chunks.append([])
                left = capacity
            chunks[-1] += group[:left]
            group = group[left:]
    return [chunk for chunk in chunks if chunk]
