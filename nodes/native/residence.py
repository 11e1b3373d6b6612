"""Parts whose weights ComfyUI's memory management moves."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import comfy.model_management as management  # pyright: ignore[reportMissingImports]
import comfy.model_patcher  # pyright: ignore[reportMissingImports]
import comfy.ops  # pyright: ignore[reportMissingImports]
import torch
from torch import nn

from ...wuerstchen_core.checkpoints.configs import IMAGE_ENCODER, STAGE_A, STAGE_B, STAGE_C
from ...wuerstchen_core.checkpoints.fit import filled
from ...wuerstchen_core.checkpoints.load import Weights, open_weights
from ...wuerstchen_core.fold import fold_embedding_mappers
from ...wuerstchen_core.residency import pick_dtype, place
from ..parts import Part
from .clip import open_clip
from .models import StageBModel, StageCModel
from .networks import (
    FLOAT8,
    ComfyImageEncoder,
    ComfyStageA,
    ComfyStageB,
    ComfyStageC,
    Hosted,
)

Network = TypeVar("Network", bound=Hosted)

# float16 is left out: Stage B and the image encoder can leave its range.
_DTYPES = [torch.bfloat16, torch.float32]


class ComfyPart(Part[Network]):
    """A part behind a ModelPatcher: the one copy of its weights, for our nodes and ComfyUI's."""

    def __init__(
        self, load: Callable[[], Any], whole: bool = False, folder: Path | None = None
    ) -> None:
        """load: gives the patcher. whole: whether it is too small to be worth loading in part."""
        super().__init__(load, folder)
        self._whole = whole
        self._patcher: Any = None

    def _open(self) -> Network:
        self._patcher = self._load()
        return getattr(self._patcher.model, "diffusion_model", self._patcher.model)

    @property
    def patcher(self) -> Any:
        """The ModelPatcher, once the weights are read: ComfyUI's cache asks all outputs for it."""
        return self._patcher

    def opened(self) -> Any:
        """ComfyUI's ModelPatcher around the weights. Raises CheckpointError."""
        self.get()
        return self._patcher

    def ready(self, shape: Sequence[int]) -> Network:
        network = self.get()
        management.load_models_gpu(
            [self._patcher],
            memory_required=network.memory_needed(shape),
            force_full_load=self._whole,
        )
        return network


def open_part(part: str, path: Callable[[], Path], dtype: str, folder: Path | None) -> Part[Any]:
    """The part of this name, as the loaders' outputs are called; read when it is first used."""
    if part.endswith("text_encoder"):
        return Part(lambda: open_clip(path(), dtype), folder)
    load = {
        "stage_c": _stage_c,
        "stage_b": _stage_b,
        "stage_a": _stage_a,
        "image_encoder": _image_encoder,
    }[part]
    whole = part in ("stage_a", "image_encoder")
    return ComfyPart(lambda: load(path(), dtype), whole, folder)


def _stage_c(path: Path, dtype: str, disable_dynamic: bool = False) -> Any:
    weights = open_weights(STAGE_C, path)
    storage, compute = _dtypes(dtype, weights)
    network = _hosted(ComfyStageC, weights, storage, compute)
    return _sampled(StageCModel(network), _stage_c, path, dtype, disable_dynamic)


def _stage_b(path: Path, dtype: str, disable_dynamic: bool = False) -> Any:
    def build(config: Any, ops: Any) -> ComfyStageB:
        return ComfyStageB(config, folded=True, ops=ops)

    weights = open_weights(STAGE_B, path)
    storage, compute = _dtypes(dtype, weights)
    folded = fold_embedding_mappers(weights.state, weights.config, compute)
    network = _hosted(build, Weights(weights.config, folded), storage, compute)
    return _sampled(StageBModel(network), _stage_b, path, dtype, disable_dynamic)


def _sampled(model: Any, load: Any, path: Path, dtype: str, disable_dynamic: bool) -> Any:
    patcher = _patcher(
        model, management.get_torch_device(), management.unet_offload_device(), disable_dynamic
    )
    patcher.cached_patcher_init = (load, (path, dtype))
    return patcher


def _stage_a(path: Path, dtype: str) -> Any:
    return _beside_pixels(ComfyStageA, open_weights(STAGE_A, path), dtype)


def _image_encoder(path: Path, dtype: str) -> Any:
    return _beside_pixels(ComfyImageEncoder, open_weights(IMAGE_ENCODER, path), dtype)


def _beside_pixels(build: Callable[..., Hosted], weights: Weights, dtype: str) -> Any:
    """What ComfyUI places and casts as it does a VAE."""
    device = management.vae_device()
    auto = dtype == "auto"
    chosen = _in_range(management.vae_dtype(device, _DTYPES)) if auto else pick_dtype(dtype, device)
    network = _hosted(build, weights, chosen, chosen, device)
    return _patcher(network, device, management.vae_offload_device())


def _dtypes(name: str, weights: Weights) -> tuple[torch.dtype, torch.dtype]:
    """What weights are stored in and computed with: "auto" is ComfyUI's choice, which its command
    line can change; another name is the user's."""
    device = management.get_torch_device()
    if name != "auto":
        chosen = pick_dtype(name, device)
        return chosen, chosen
    count = sum(value.numel() for value in weights.state.values())
    storage = _in_range(management.unet_dtype(device, count, _DTYPES))
    return storage, management.unet_manual_cast(storage, device, _DTYPES) or storage


def _in_range(dtype: torch.dtype) -> torch.dtype:
    """ComfyUI's `--fp16-…` flags overrule what a network says it can do."""
    return torch.bfloat16 if dtype is torch.float16 else dtype


def _hosted(
    build: Callable[..., Network],
    weights: Weights,
    storage: torch.dtype,
    compute: torch.dtype,
    device: torch.device | None = None,
) -> Network:
    """Fills a network with its weights, in memory."""
    ops = comfy.ops.disable_weight_init if storage == compute else comfy.ops.manual_cast
    network = filled(lambda: build(weights.config, ops=ops), weights.state)
    network.compute_dtype = compute
    network.compute_device = device or management.get_torch_device()
    network.stored_small = storage in FLOAT8
    return place(network, torch.device("cpu"), storage)


def _patcher(
    model: nn.Module,
    load_device: torch.device,
    offload_device: torch.device,
    disable_dynamic: bool = False,
) -> Any:
    # Newer ComfyUIs stream weights through a patcher of their choice, and ask for a record of
    # the dtypes to keep.
    plain = comfy.model_patcher.ModelPatcher
    kind = plain if disable_dynamic else getattr(comfy.model_patcher, "CoreModelPatcher", plain)
    archive = getattr(management, "archive_model_dtypes", None)
    if archive is not None:
        archive(model)
    return kind(model, load_device=load_device, offload_device=offload_device)
