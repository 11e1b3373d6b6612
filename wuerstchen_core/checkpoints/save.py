"""Networks -> files in the published layout, which diffusers and transformers load too."""

import errno
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import CheckpointError
from ..files import write_atomically
from ..stage_b import StageB
from ..stage_c import LATENT_MEAN, LATENT_STD
from ..text_encoder import TextEncoder
from .configs import ARCHITECTURES, Architecture
from .towers import PREFIX

# What the weights are called in a part's folder, and in that of a text encoder.
PART_WEIGHTS, TOWER_WEIGHTS = "diffusion_pytorch_model.safetensors", "model.safetensors"

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
    state = cast(network.state_dict(), dtype)
    write_part(architecture, network.config, state, folder)


def write_part(
    architecture: Architecture[Any],
    config: Any,
    state: dict[str, Tensor],
    folder: Path,
    about: Mapping[str, str] | None = None,
) -> None:
    """Writes a part's folder from its weights by our names. about: more metadata of the file."""
    write_weights(folder / PART_WEIGHTS, state, about)
    write_json(folder / "config.json", _config_of(architecture, config))


def save_text_encoder(
    encoder: TextEncoder, folder: Path, dtype: torch.dtype = torch.float16
) -> None:
    """Writes `text_encoder` and `tokenizer` into a pipeline's folder. Raises like save_network."""
    state = {
        PREFIX + name.removeprefix(PREFIX): value
        for name, value in cast(encoder.network.state_dict(), dtype).items()
    }
    write_tower(encoder.network.config, state, folder / "text_encoder")
    write_tokenizer(encoder.tokenizer, folder / "tokenizer")


def write_tower(config: Any, state: dict[str, Tensor], folder: Path) -> None:
    """Writes a `text_encoder` folder from its weights, with or without `PREFIX`."""
    # Without a dtype, transformers would compute in the file's, beside float32 networks.
    wanted = {"architectures": ["CLIPTextModel"], "torch_dtype": "float32"}
    stated = {**config.to_dict(), **wanted}
    stated.pop("dtype", None)
    write_weights(folder / TOWER_WEIGHTS, state)
    write_json(folder / "config.json", stated)


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
        write_json(folder / name / "model_index.json", index)
        write_json(folder / name / "scheduler" / "scheduler_config.json", scheduler)


def _config_of(architecture: Architecture[Any], config: Any) -> dict[str, Any]:
    usual = architecture.config()
    values = asdict(config)
    for field in fields(config):
        if field.name in _OWN_FIELDS and getattr(config, field.name) == getattr(usual, field.name):
            del values[field.name]
    return {"_class_name": architecture.class_name, **values}


def cast(state: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """The weights in a dtype. Raises CheckpointError for one whose range they leave."""
    result = {}
    for name, value in state.items():
        if value.is_floating_point():
            result[name] = value.detach().to("cpu", dtype).contiguous()
            if not result[name].isfinite().all() and value.float().isfinite().all():
                raise CheckpointError(
                    f"{name} goes up to {value.float().abs().max().item():.3g}, which {dtype} "
                    "cannot hold; save as torch.bfloat16 or torch.float32."
                )
        else:
            result[name] = value.detach().cpu().contiguous()
    return result


def write_json(path: Path, data: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as partial:
        partial.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def write_weights(
    path: Path, state: dict[str, Tensor], about: Mapping[str, str] | None = None
) -> None:
    """Writes a .safetensors file of contiguous tensors. Raises OSError, as for a full disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as partial:
        try:
            save_file(state, partial, metadata={"format": "pt", **(about or {})})
        except SafetensorError as error:  # is no OSError, and names the cause in words only
            raise OSError(errno.EIO, str(error).rstrip("."), str(path)) from error


def write_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Writes a tokenizer's folder as published ones are."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer.save_pretrained(scratch)
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
