"""The demo's tokenizer: a real CLIPTokenizer whose byte pairs spell the captions' words."""

import json
from pathlib import Path

from .captions import vocabulary

START, END = "<|startoftext|>", "<|endoftext|>"
CONTEXT = 77


def build_tokenizer(folder: Path) -> None:
    """Writes vocab.json, merges.txt and the two config files of the published layout.

    Every caption word is one token; any other text falls back to letters and bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    symbols = list(_byte_symbols())
    merges = _merges(vocabulary())
    tokens = [*symbols, *(symbol + "</w>" for symbol in symbols)]
    tokens += [left + right for left, right in merges]
    tokens += [START, END]

    vocab = {token: index for index, token in enumerate(tokens)}
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges)]
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    config = {
        **special,
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": CONTEXT,
        "do_lower_case": True,
        "add_prefix_space": False,
        "errors": "replace",
    }
    _write(folder / "vocab.json", json.dumps(vocab, ensure_ascii=False))
    _write(folder / "merges.txt", "\n".join(lines) + "\n")
    _write(folder / "special_tokens_map.json", json.dumps(special, indent=2))
    _write(folder / "tokenizer_config.json", json.dumps(config, indent=2))


def _merges(words: list[str]) -> list[tuple[str, str]]:
    """Byte pairs, first ones first, that join each word into one token.

    A new pair ranks below all before it, so it cannot change how an earlier word is joined.
    """
    merges: list[tuple[str, str]] = []
    for word in words:
        parts = [*word[:-1], word[-1] + "</w>"]
        for pair in merges:
            parts = _join(parts, pair)
        while len(parts) > 1:
            merges.append((parts[0], parts[1]))
            parts = _join(parts, merges[-1])
    return merges


def _join(parts: list[str], pair: tuple[str, str]) -> list[str]:
    """Joins every occurrence of a pair, from left to right."""
    joined: list[str] = []
    for part in parts:
        if joined and (joined[-1], part) == pair:
            joined[-1] += part
        else:
            joined.append(part)
    return joined


def _byte_symbols() -> list[str]:
    """One printable character for each of the 256 bytes, as in GPT-2's byte-level BPE: printable
    Latin-1 stands for itself, the others for the characters from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(b) for b in printable] + [chr(0x100 + i) for i in range(len(others))]


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
