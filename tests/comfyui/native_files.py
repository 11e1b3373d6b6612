"""Case of `native_runner.py`: a text encoder in one file, as ComfyUI's users have it."""

from pathlib import Path
from typing import Any

import torch
from native_pack import TEXT, Pack, error

NAME, PROJECTION = "clip_g.safetensors", "text_projection.weight"


def text_file(pack: Pack) -> dict[str, Any]:
    """Without config and tokenizer beside it: the words come from ComfyUI's own tokenizer."""
    import comfy.sd1_clip  # pyright: ignore[reportMissingImports]
    from safetensors.torch import save_file
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    config = CLIPTextConfig(
        vocab_size=49_408,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=24,
        num_attention_heads=1,
        hidden_act="gelu",
        bos_token_id=49_406,
        eos_token_id=49_407,
    )
    torch.manual_seed(0)
    tower = CLIPTextModel(config).eval()
    state = {
        f"text_model.{name.removeprefix('text_model.')}": value
        for name, value in tower.state_dict().items()
    }
    folder = pack.base / "models" / "text_encoders"
    folder.mkdir(parents=True, exist_ok=True)
    save_file({**state, PROJECTION: torch.zeros(64, 64)}, folder / NAME)

    node = pack.nodes["WuerstchenLoadTextEncoder"]
    offered = node.INPUT_TYPES()["required"]["name"][1]["options"]
    encoder = pack("WuerstchenLoadTextEncoder", name=NAME, dtype="float32")
    ours = pack("WuerstchenTextEncode", text_encoder=encoder, text=TEXT)[0][0]
    clip = pack("WuerstchenCLIP", text_encoder=encoder)
    native = pack("CLIPTextEncode", clip=clip, text=TEXT)[0][0]

    words = Path(comfy.sd1_clip.__file__).with_name("sd1_tokenizer")
    tokens = CLIPTokenizer.from_pretrained(words)(
        TEXT, padding="max_length", max_length=77, return_tensors="pt"
    )
    expected = tower(**tokens).last_hidden_state
    return {
        "offered": NAME in offered,
        "padding": int(tokens.input_ids[0, -1]),
        "ours": error(ours, expected),
        "native": error(native, expected),
    }


CASES = (text_file,)
