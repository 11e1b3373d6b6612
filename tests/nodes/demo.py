"""The demo checkpoint's nodes, called as ComfyUI calls them."""

from typing import Any

import torch

from comfyui_wuerstchen.nodes import NODE_CLASS_MAPPINGS
from comfyui_wuerstchen.nodes.parts import Part
from comfyui_wuerstchen.wuerstchen_core.training.demo.scenes import draw, sample_scenes

SAMPLING = {"seed": 1, "sampler_name": "ddpm", "denoise": 1.0}
STAGE_C = {**SAMPLING, "steps": 8, "cfg": 4.0, "scheduler": "default"}
STAGE_B = {**SAMPLING, "steps": 4, "cfg": 0.0, "scheduler": "uniform"}


def call(node_id: str, **inputs: Any) -> Any:
    """The node's first output, or all of them when there are several."""
    node = NODE_CLASS_MAPPINGS[node_id]
    outputs = getattr(node(), node.FUNCTION)(**inputs)
    assert len(outputs) == len(node.RETURN_TYPES)
    return outputs[0] if len(outputs) == 1 else outputs


def encode(parts: dict[str, Part[Any]], text: str, role: str = "prior") -> Any:
    encoder = parts[f"{role}_text_encoder"]
    return call("WuerstchenTextEncode", text_encoder=encoder, text=text)


def prior(parts: dict[str, Part[Any]], latent: dict[str, Any], **changes: Any) -> Any:
    inputs = {
        "stage_c": parts["stage_c"],
        "positive": encode(parts, "a large red star on a blue background"),
        "negative": encode(parts, ""),
        "latent_image": latent,
    }
    return call("WuerstchenStageCSampler", **{**inputs, **STAGE_C, **changes})


def decoder(parts: dict[str, Part[Any]], latent: dict[str, Any], **changes: Any) -> Any:
    inputs = {"stage_b": parts["stage_b"], "stage_c_latent": latent}
    return call("WuerstchenStageBSampler", **{**inputs, **STAGE_B, **changes})


def empty(width: int = 256, height: int = 256, batch_size: int = 1) -> Any:
    return call("WuerstchenEmptyLatent", width=width, height=height, batch_size=batch_size)


def picture(size: int = 256) -> torch.Tensor:
    scenes = sample_scenes(1, torch.Generator().manual_seed(4))
    return draw(scenes, size).movedim(1, -1)
