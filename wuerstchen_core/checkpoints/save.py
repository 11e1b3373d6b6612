"""Networks -> files in the published layout, which diffusers and transformers load too."""

import json
import shutil
import tempfile
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import CheckpointError
from ..files import write_atomically
from ..stage_b import StageB
from ..stage_c import LATENT_MEAN, LATENT_STD
from ..text_encoder import TextEncoder
from .configs import ARCHITECTURES, Architecture
from .text import PREFIX

# Fields of ours that no published config.json has; written only where they say something.
_OWN_FIELDS = ("stem", "stages", "stochastic_depth")

# Published indexes name "wuerstchen" alone, which diffusers finds no more since it moved the
# pipelines (tried with 0.42); it takes components from the module that defines them.
_DIFFUSERS = "diffusers.pipelines.deprecated.wuerstchen"


def save_network(network: nn.Module, folder: Path, dtype: torch.dtype = torch.float16) -> None:
    """Writes `config.json` and `diffusion_pytorch_model.safetensors`, each whole or not at all.

    Raises CheckpointError for a folded Stage B, and for weights beyond the range of `dtype`.
    """
    if isinstance(network, StageB) and network.folded:
        raise CheckpointError(
            "a folded Stage B has no published layout; load it with fold=False to save it."
        )
    architecture = next(a for a in ARCHITECTURES if a.build is type(network))
    state = _cast(network.state_dict(), dtype)
    _write_json(folder / "config.json", _config_of(architecture, network.config))
    _write_weights(folder / "diffusion_pytorch_model.safetensors", state)


def save_text_encoder(
    encoder: TextEncoder, folder: Path, dtype: torch.dtype = torch.float16
) -> None:
    """Writes `text_encoder` and `tokenizer` into a pipeline's folder. Raises like save_network."""
    state = {
        PREFIX + name.removeprefix(PREFIX): value
        for name, value in _cast(encoder.network.state_dict(), dtype).items()
    }
    # Without a dtype, transformers would compute in the file's, beside float32 networks.
    wanted = {"architectures": ["CLIPTextModel"], "torch_dtype": "float32"}
    config = {**encoder.network.config.to_dict(), **wanted}
    config.pop("dtype", None)
    _write_json(folder / "text_encoder" / "config.json", config)
    _write_weights(folder / "text_encoder" / "model.safetensors", state)
    _write_tokenizer(encoder, folder / "tokenizer")


def write_pipeline_indexes(folder: Path) -> None:
    """Writes what makes `wuerstchen-prior` and `wuerstchen` in a folder pipelines of diffusers."""
    shared = {
        "scheduler": ["diffusers", "DDPMWuerstchenScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
    }
    indexes = {
        "wuerstchen-prior": {
            "_class_name": "WuerstchenPriorPipeline",
            "latent_mean": LATENT_MEAN,
            "latent_std": LATENT_STD,
            "prior": [f"{_DIFFUSERS}.modeling_wuerstchen_prior", "WuerstchenPrior"],
            "resolution_multiple": 42.67,
            **shared,
        },
        "wuerstchen": {
            "_class_name": "WuerstchenDecoderPipeline",
            "decoder": [f"{_DIFFUSERS}.modeling_wuerstchen_diffnext", "WuerstchenDiffNeXt"],
            "latent_dim_scale": 10.67,
            "vqgan": [f"{_DIFFUSERS}.modeling_paella_vq_model", "PaellaVQModel"],
            **shared,
        },
    }
    scheduler = {"_class_name": "DDPMWuerstchenScheduler", "s": 0.008, "scaler": 1.0}
    for name, index in indexes.items():
        _write_json(folder / name / "model_index.json", index)
        _write_json(folder / name / "scheduler" / "scheduler_config.json", scheduler)


def _config_of(architecture: Architecture[Any], config: Any) -> dict[str, Any]:
    usual = architecture.config()
    values = asdict(config)
    for field in fields(config):
        if field.name in _OWN_FIELDS and getattr(config, field.name) == getattr(usual, field.name):
            del values[field.name]
    return {"_class_name": architecture.class_name, **values}


def _cast(state: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    cast = {}
    for name, value in state.items():
        if value.is_floating_point():
            cast[name] = value.detach().to("cpu", dtype).contiguous()
            if value.isfinite().all() and not cast[name].isfinite().all():
                raise CheckpointError(
                    f"{name} goes up to {value.abs().max().item():.3g}, which {dtype} cannot hold; "
                    "save as torch.bfloat16 or torch.float32."
                )
        else:
            cast[name] = value.detach().cpu().contiguous()
    return cast


def _write_json(path: Path, data: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as partial:
        partial.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def _write_weights(path: Path, state: dict[str, Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as partial:
        save_file(state, partial, metadata={"format": "pt"})


def _write_tokenizer(encoder: TextEncoder, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        encoder.tokenizer.save_pretrained(scratch)
        _add_published_vocabulary(Path(scratch))
        for file in Path(scratch).iterdir():
            with write_atomically(folder / file.name) as partial:
                shutil.copyfile(file, partial)


def _add_published_vocabulary(folder: Path) -> None:
    """tokenizer.json, all that transformers 5 writes -> also vocab.json and merges.txt, which
    published repositories have and transformers 4 reads."""
    if (folder / "vocab.json").exists():
        return
    model = json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    vocabulary = json.dumps(model["vocab"], ensure_ascii=False)
    (folder / "vocab.json").write_text(vocabulary, encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
