"""Cases of `native_runner.py`: what prompts say, in our Text Encode and in ComfyUI's."""

from typing import Any

import torch
from native_pack import TEXT, Pack, error, noise

WORDS = (TEXT.split() * 20)[:150]
PROMPTS = {
    "weights": "a (large) ((red)) (star:1.5) on a (blue:0.5) background",
    "nested": "((a (large:1.3) red) star:0.8) on ((blue:1.2))",
    "escaped": r"a \(large\) (red\) star:1.4)",
    "unbalanced": "a (large red star on ((a blue) background",
    "closed too often": "a large) red (star) on (a blue background",
    "no number": "(a:b) (red:) (:1.5) star",
    "two chunks": " ".join(WORDS),
    "full chunk": " ".join(WORDS[:75]),
    "one more": " ".join(WORDS[:76]),
    "weights in chunks": f"({' '.join(WORDS[:40])}:1.2) {' '.join(WORDS[40:])} (star:-0.5)",
    "short part at the edge": f"{' '.join(WORDS[:73])} (large red star:1.3) on a background",
    "embedding": "a star embedding:e{width} on blue",
    "weighted embedding": "embedding:e{width}, a (red embedding:e{width}.pt:1.3) star",
    "embedding at the edge": f"{' '.join(WORDS[:74])} embedding:e{{width}} star",
    "embedding of another width": "a star embedding:e1 on blue",
    "missing embedding": "a star embedding:none, on blue",
}


def prompts(pack: Pack) -> dict[str, float]:
    """Both nodes on the same tower, and our encoder on transformers' tower of the same weights."""
    found: dict[str, float] = {}
    folder = pack.base / "models" / "embeddings"
    folder.mkdir(exist_ok=True)
    torch.save({"string_to_param": {"*": noise(2, 1)}}, folder / "e1.pt")
    plain = pack.core("checkpoints").load_text_encoder
    embeddings = pack.core("embeddings").Embeddings([folder])
    for role in ("prior", "decoder"):
        encoder: Any = pack.tiny[f"{role}_text_encoder"]
        width = encoder.get().width
        torch.save({"string_to_param": {"*": noise(2, width)}}, folder / f"e{width}.pt")
        native = pack("WuerstchenCLIP", text_encoder=encoder)
        tower = plain(pack.path(f"{role}_text_encoder"), "float32")
        for name, prompt in PROMPTS.items():
            text = prompt.replace("{width}", str(width))
            expected = pack("CLIPTextEncode", clip=native, text=text)[0][0]
            ours = pack("WuerstchenTextEncode", text_encoder=encoder, text=text)[0][0]
            found[f"{role} {name}"] = error(ours, expected)
            alone = tower.encode([text], embeddings)
            found[f"{role} {name}, transformers"] = error(alone, expected)
    return found


CASES = (prompts,)
