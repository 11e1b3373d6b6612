"""Load Würstchen LoRA in a running ComfyUI: what it says, and that it runs anew when it should."""

from __future__ import annotations

import struct

import pytest

from ..server.conftest import Prompt
from .conftest import Comfy
from .graphs import text_to_image

pytestmark = [pytest.mark.comfyui, pytest.mark.slow]

PROGRESS_TEXT = 3
LORA = "wuerstchen-demo/lora/all_red.safetensors"
SAID = "applied 24 of 24 to Stage C"


def without_lora() -> Prompt:
    prompt = text_to_image(256, 256, steps=6, seed=77)
    prompt["text"]["inputs"]["text"] = "a large blue star in the center on a yellow background"
    return prompt


def with_lora(strength: float) -> Prompt:
    prompt = without_lora()
    inputs = {"stage_c": ["load", 0], "lora_name": LORA, "strength": strength}
    node = {"class_type": "WuerstchenLoadLoRA", "inputs": {**inputs, "strength_text": 1.0}}
    prompt["C"]["inputs"]["stage_c"] = ["lora", 0]
    return {"lora": node, **prompt}


async def test_what_was_applied_is_shown_on_the_node(comfyui: Comfy) -> None:
    outcome = await comfyui.run(with_lora(0.75))
    assert outcome.error is None
    assert outcome.outputs["lora"] == {"text": [SAID]}
    texts = {}
    for frame in outcome.listener.pictures:
        kind, length = struct.unpack(">II", frame[:8])
        if kind == PROGRESS_TEXT:
            texts[frame[8 : 8 + length].decode()] = frame[8 + length :].decode()
    assert texts == {"lora": f"all_red.safetensors: {SAID}"}


async def test_the_strength_changes_the_picture(comfyui: Comfy) -> None:
    plain, changed, again = [
        (await comfyui.pictures(prompt))[0].astype(int)
        for prompt in (without_lora(), with_lora(1.0), with_lora(0.0))
    ]
    assert (plain == again).all()
    assert abs(plain - changed).mean() > 5


async def test_the_list_has_the_demos(comfyui: Comfy) -> None:
    info = await comfyui.get("/object_info/WuerstchenLoadLoRA")
    choices = info["WuerstchenLoadLoRA"]["input"]["required"]["lora_name"]
    assert LORA in str(choices)
