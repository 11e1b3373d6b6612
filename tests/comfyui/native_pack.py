"""ComfyUI's nodes with ours among them, for the cases that `native_runner.py` runs."""

import asyncio
import importlib
import sys
from pathlib import Path
from typing import Any

import torch

EXTRAS = (
    "custom_sampler model_merging model_advanced freelunch stable_cascade pag cond latent mask "
    "hooks"
)
SEED = 7
TEXT = "a large red star on a blue background"
GENERATOR = torch.Generator().manual_seed(0)


class Pack:
    """ComfyUI's nodes with ours among them, and our core for what plain Python gives."""

    def __init__(self, checkout: Path, base: Path) -> None:
        sys.path.insert(0, str(checkout))
        sys.argv = ["main.py", "--cpu", f"--base-directory={base}"]
        import comfy.options  # pyright: ignore[reportMissingImports]

        comfy.options.enable_args_parsing()
        import comfy.model_management  # pyright: ignore[reportMissingImports]
        import folder_paths  # noqa: F401  # pyright: ignore[reportMissingImports]

        import nodes  # pyright: ignore[reportMissingImports]

        self.management = comfy.model_management
        for name in EXTRAS.split():
            path = checkout / "comfy_extras" / f"nodes_{name}.py"
            asyncio.run(nodes.load_custom_node(str(path), module_parent="comfy_extras"))
        (pack,) = (base / "custom_nodes").iterdir()
        asyncio.run(nodes.load_custom_node(str(pack)))
        self.nodes = nodes.NODE_CLASS_MAPPINGS
        names = [n for n in sys.modules if n.endswith(".nodes.native.bridges")]
        (self.name,) = (name.removesuffix(".nodes.native.bridges") for name in names)
        self.base = base
        self.tiny = self.load("tiny")
        self.demo = self.load("wuerstchen-demo")

    def __call__(self, node_id: str, **inputs: Any) -> Any:
        """The node's first output."""
        return self.all(node_id, **inputs)[0]

    def all(self, node_id: str, **inputs: Any) -> list[Any]:
        node = self.nodes[node_id]
        answer = getattr(node(), node.FUNCTION)(**inputs)
        if isinstance(answer, dict):
            answer = answer["result"]
        return list(getattr(answer, "result", answer))

    def load(self, folder: str, dtype: str = "float32") -> dict[str, Any]:
        node = self.nodes["WuerstchenLoadPipeline"]
        outputs = self.all("WuerstchenLoadPipeline", folder=folder, dtype=dtype)
        return dict(zip(node.RETURN_NAMES, outputs, strict=True))

    def core(self, module: str) -> Any:
        return self.module(f"wuerstchen_core.{module}")

    def module(self, name: str) -> Any:
        """One of the pack's."""
        return importlib.import_module(f"{self.name}.{name}")

    def path(self, part: str, folder: str = "tiny") -> Path:
        find = self.core("checkpoints").find_parts
        root = self.base / "models" / "wuerstchen" / folder
        return find(root).require(part)

    def texts(self, parts: dict[str, Any], role: str = "prior") -> tuple[Any, Any]:
        encoder = parts[f"{role}_text_encoder"]
        return tuple(
            self("WuerstchenTextEncode", text_encoder=encoder, text=text) for text in (TEXT, "")
        )

    def empty(self, batch: int = 1, side: int = 256) -> Any:
        return self("WuerstchenEmptyLatent", width=side, height=side, batch_size=batch)

    def ours(self, parts: dict[str, Any], **changes: Any) -> torch.Tensor:
        """Our Stage C sampler."""
        positive, negative = self.texts(parts)
        inputs = {
            "stage_c": parts["stage_c"],
            "positive": positive,
            "negative": negative,
            "latent_image": self.empty(),
            "seed": SEED,
            "steps": 29,
            "cfg": 4.0,
            "sampler_name": "ddpm",
            "scheduler": "default",
            "denoise": 1.0,
        }
        return self("WuerstchenStageCSampler", **{**inputs, **changes})["samples"]

    def custom(
        self, parts: dict[str, Any], model: Any = None, latent: Any = None, **changes: Any
    ) -> torch.Tensor:
        """SamplerCustom with our sigmas and sampler."""
        positive, negative = self.texts(parts)
        walk = {"steps": 29, "scheduler": "default", "denoise": 1.0}
        walk.update({key: changes.pop(key) for key in walk if key in changes})
        inputs = {
            "model": model or self("WuerstchenStageCModel", stage_c=parts["stage_c"]),
            "add_noise": True,
            "noise_seed": SEED,
            "cfg": 4.0,
            "positive": positive,
            "negative": negative,
            "sampler": self("WuerstchenReferenceSampler"),
            "sigmas": self("WuerstchenSigmas", **walk),
            "latent_image": latent or self.empty(),
        }
        return self("SamplerCustom", **{**inputs, **changes})["samples"]

    def ksampler(self, parts: dict[str, Any], model: Any = None, **changes: Any) -> torch.Tensor:
        positive, negative = self.texts(parts)
        inputs = {
            "model": model or self("WuerstchenStageCModel", stage_c=parts["stage_c"]),
            "seed": SEED,
            "steps": 6,
            "cfg": 4.0,
            "sampler_name": "euler",
            "scheduler": "simple",
            "positive": positive,
            "negative": negative,
            "latent_image": self.empty(),
            "denoise": 1.0,
        }
        return self("KSampler", **{**inputs, **changes})["samples"]


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, relative to the largest value."""
    assert found.shape == expected.shape, (found.shape, expected.shape)
    return ((found - expected).abs().max() / expected.abs().max()).item()


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=GENERATOR)
