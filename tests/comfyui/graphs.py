"""Small API prompts around the demo checkpoint."""

from __future__ import annotations

from typing import Any

from ..server.conftest import Prompt, graph

LOADER = {"folder": "wuerstchen-demo", "dtype": "float32"}
TEXT = "a large red star in the top left on a blue background"


def sampling(steps: int, cfg: float, scheduler: str, seed: int = 5) -> dict[str, Any]:
    settings = {"seed": seed, "steps": steps, "cfg": cfg, "sampler_name": "ddpm"}
    return {**settings, "scheduler": scheduler, "denoise": 1.0}


def text_to_image(
    width: int = 128, height: int = 128, batch_size: int = 1, steps: int = 2, seed: int = 5
) -> Prompt:
    """Nodes `load`, `size`, `text`, `empty`, `C`, `B`, `A` and `save`, in this order."""
    size = {"width": width, "height": height, "batch_size": batch_size}
    return graph(
        load=("WuerstchenLoadPipeline", dict(LOADER)),
        size=("WuerstchenEmptyLatent", size),
        text=("WuerstchenTextEncode", {"text_encoder": ["load", 3], "text": TEXT}),
        empty=("WuerstchenTextEncode", {"text_encoder": ["load", 3], "text": ""}),
        C=(
            "WuerstchenStageCSampler",
            {
                "stage_c": ["load", 0],
                "positive": ["text", 0],
                "negative": ["empty", 0],
                "latent_image": ["size", 0],
                **sampling(steps, 2.0, "default", seed),
            },
        ),
        B=(
            "WuerstchenStageBSampler",
            {
                "stage_b": ["load", 1],
                "stage_c_latent": ["C", 0],
                **sampling(steps, 0.0, "uniform", seed),
            },
        ),
        A=("WuerstchenStageADecode", {"stage_a": ["load", 2], "samples": ["B", 0]}),
        save=("SaveImage", {"images": ["A", 0], "filename_prefix": "test"}),
    )
