"""Parts whose weights ComfyUI's memory management moves."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import comfy.model_management as management  # pyright: ignore[reportMissingImports]
import comfy.model_patcher  # pyright: ignore[reportMissingImports]
import comfy.ops  # pyright: ignore[reportMissingImports]
import torch
from torch import nn

from ...wuerstchen_core.checkpoints.configs import (
    IMAGE_ENCODER,
    IMAGE_ENCODER_V1,
    STAGE_A,
    STAGE_B,
    STAGE_B_V1,
    STAGE_C_V1,
)
from ...wuerstchen_core.checkpoints.fit import filled
from ...wuerstchen_core.checkpoints.load import Weights, open_weights
from ...wuerstchen_core.compile import compiled
from ...wuerstchen_core.computed import stored as stored_state
from ...wuerstchen_core.fold import fold_embedding_mappers
from ...wuerstchen_core.lora import Changes
from ...wuerstchen_core.optimize import Optimization
from ...wuerstchen_core.residency import pick_dtype, place
from ..parts import Part, Stored
from ..stored import stored_as
from .clip import ClipPart, open_clip
from .models import StageBModel, StageCModel
from .networks import (
    FLOAT8,
    ComfyImageEncoder,
    ComfyPaella,
    ComfyStageA,
    ComfyStageB,
    ComfyStageC,
    Hosted,
)
from .patches import with_patches
from .quantise import ops_for, quantiser

log = logging.getLogger(__name__)

Network = TypeVar("Network", bound=Hosted)

# float16 is left out: Stage B and the image encoder can leave its range.
_DTYPES = [torch.bfloat16, torch.float32]


class ComfyPart(Part[Network]):
    """A part behind a ModelPatcher: the one copy of its weights, for our nodes and ComfyUI's."""

    def __init__(
        self,
        read: Callable[[Optimization], Any],
        whole: bool,
        folder: Path | None,
        optimization: Optimization,
        stored: Stored | None = None,
    ) -> None:
        """read: gives the patcher. whole: whether it is too small to be worth loading in part."""
        super().__init__(read, folder, optimization, stored)
        self._whole = whole

    def _kept(self) -> Optimization:
        """Where weights lie is ComfyUI's to decide. It moves those of the modules that it knows,
        so a compiled network has its own."""
        return replace(self.optimization, residency="resident", step_cache=0.0, guidance_end=1.0)

    def get(self) -> Network:
        model = self.opened().model
        return getattr(model, "diffusion_model", model)

    @property
    def patcher(self) -> Any:
        """The ModelPatcher, once the weights are read: ComfyUI's cache asks all outputs for it."""
        return self.weights.network

    def opened(self) -> Any:
        """ComfyUI's ModelPatcher around the weights. Raises CheckpointError."""
        return super().get()

    @staticmethod
    def _with_changes(network: Any, stored: Stored, changes: Changes, kept: Optimization) -> Any:
        """A patcher of the same weights, which ComfyUI changes while it runs."""
        return with_patches(network, stored.open(), changes)

    def ready(self, shape: Sequence[int]) -> Network:
        network = self.get()
        management.load_models_gpu(
            [self.opened()],
            memory_required=network.memory_needed(shape),
            force_full_load=self._whole,
        )
        return network


def open_part(
    part: str,
    path: Callable[[], Path],
    dtype: str,
    folder: Path | None,
    optimization: Optimization,
) -> Part[Any]:
    """The part of this name, as the loaders' outputs are called; read when it is first used."""
    stored = stored_as(part, path, dtype)
    if part.endswith("text_encoder"):
        return ClipPart(lambda _: open_clip(path(), dtype), folder, optimization, stored)
    if part == "stage_c":
        assert stored is not None
        return stage_c_part(stored, dtype, folder, optimization)
    load = {
        "stage_b": _stage_b,
        "stage_a": _stage_a,
        "image_encoder": _image_encoder,
    }[part]
    whole = part in ("stage_a", "image_encoder")
    return ComfyPart(
        lambda wanted: load(path(), dtype, wanted), whole, folder, optimization, stored
    )


def stage_c_part(
    stored: Stored, dtype: str, folder: Path | None, optimization: Optimization
) -> Part[Any]:
    """Stage C of weights that are opened when it is first used."""

    return ComfyPart(
        lambda wanted: _stage_c(stored.open, dtype, wanted), False, folder, optimization, stored
    )


_OF_V1 = {
    "stage_c": (STAGE_C_V1, ComfyStageC),
    "stage_b": (STAGE_B_V1, ComfyPaella),
    "image_encoder": (IMAGE_ENCODER_V1, ComfyImageEncoder),
}


def open_v1_part(
    part: str,
    path: Callable[[], Path],
    dtype: str,
    folder: Path | None,
    optimization: Optimization,
) -> Part[Any]:
    """One of `_OF_V1`, which ComfyUI's own samplers do not know; read when it is first used."""
    architecture, build = _OF_V1[part]
    whole = part == "image_encoder"

    def read(wanted: Optimization) -> Any:
        weights = open_weights(architecture, path())
        if whole:
            return _beside_pixels(build, weights, dtype, wanted)
        network = _hosted(build, weights, _dtypes(dtype, weights), wanted)
        device, rest = management.get_torch_device(), management.unet_offload_device()
        return _patcher(network, device, rest, disable_dynamic=wanted.compile != "off")

    return ComfyPart(read, whole, folder, optimization)


def device_of(part: str) -> torch.device:
    """Where ComfyUI runs a part."""
    if part.endswith("text_encoder"):
        return management.text_encoder_device()
    if part in ("stage_a", "image_encoder"):
        return management.vae_device()
    return management.get_torch_device()


def _stage_c(
    opened: Callable[[], Weights], dtype: str, wanted: Optimization, disable_dynamic: bool = False
) -> Any:
    weights = opened()
    network = _hosted(ComfyStageC, weights, _dtypes(dtype, weights), wanted)
    return _sampled(StageCModel(network), _stage_c, (opened, dtype, wanted), disable_dynamic)


def _stage_b(path: Path, dtype: str, wanted: Optimization, disable_dynamic: bool = False) -> Any:
    def build(config: Any, ops: Any) -> ComfyStageB:
        return ComfyStageB(config, folded=True, ops=ops)

    weights = open_weights(STAGE_B, path)
    dtypes = _dtypes(dtype, weights)
    folded = fold_embedding_mappers(weights.state, weights.config, dtypes.compute)
    network = _hosted(build, Weights(weights.config, folded), dtypes, wanted)
    return _sampled(StageBModel(network), _stage_b, (path, dtype, wanted), disable_dynamic)


def _sampled(
    model: Any, read: Any, arguments: tuple[Any, str, Optimization], disable_dynamic: bool
) -> Any:
    """read, arguments: what ComfyUI opens the weights anew with."""
    # What is streamed by ComfyUI's newer way cannot be compiled; its own node does without too.
    plain = disable_dynamic or arguments[2].compile != "off"
    patcher = _patcher(
        model, management.get_torch_device(), management.unet_offload_device(), plain
    )
    patcher.cached_patcher_init = (read, arguments)
    return patcher


def _stage_a(path: Path, dtype: str, wanted: Optimization) -> Any:
    return _beside_pixels(ComfyStageA, open_weights(STAGE_A, path), dtype, wanted)


def _image_encoder(path: Path, dtype: str, wanted: Optimization) -> Any:
    return _beside_pixels(ComfyImageEncoder, open_weights(IMAGE_ENCODER, path), dtype, wanted)


def _beside_pixels(
    build: Callable[..., Hosted], weights: Weights, dtype: str, wanted: Optimization
) -> Any:
    """What ComfyUI places and casts as it does a VAE."""
    device = management.vae_device()
    auto = dtype == "auto"
    chosen = _in_range(management.vae_dtype(device, _DTYPES)) if auto else pick_dtype(dtype, device)
    network = _hosted(build, weights, _Dtypes(chosen, chosen), wanted, device)
    return _patcher(network, device, management.vae_offload_device())


class _Dtypes(NamedTuple):
    """What weights are stored in and computed with."""

    storage: torch.dtype
    compute: torch.dtype


def _dtypes(name: str, weights: Weights) -> _Dtypes:
    """For "auto" ComfyUI's choice, which its command line can change; else the user's."""
    device = management.get_torch_device()
    if name != "auto":
        chosen = pick_dtype(name, device)
        return _Dtypes(chosen, chosen)
    count = sum(value.numel() for value in stored_state(weights.state).values())
    storage = _in_range(management.unet_dtype(device, count, _DTYPES))
    compute = management.unet_manual_cast(storage, device, _DTYPES) or storage
    return _Dtypes(storage, compute)


def _in_range(dtype: torch.dtype) -> torch.dtype:
    """ComfyUI's `--fp16-…` flags overrule what a network says it can do."""
    return torch.bfloat16 if dtype is torch.float16 else dtype


def _hosted(
    build: Callable[..., Network],
    weights: Weights,
    dtypes: _Dtypes,
    wanted: Optimization,
    device: torch.device | None = None,
) -> Network:
    """Fills a network with its weights, in memory; stored and compiled as `wanted` tells."""
    stored = wanted.storage != "as_loaded"
    if stored:  # then ComfyUI's command line has no say in it
        dtypes = _Dtypes(dtypes.compute, dtypes.compute)
        ops = ops_for(wanted.storage, dtypes.compute)
    else:
        same = dtypes.storage == dtypes.compute
        ops = comfy.ops.disable_weight_init if same else comfy.ops.manual_cast
    network = filled(lambda: build(weights.config, ops=ops), weights.state)
    network.compute_dtype = dtypes.compute
    network.compute_device = device or management.get_torch_device()
    network.stored_small = dtypes.storage in FLOAT8
    then = quantiser(network, wanted.storage, ops) if stored else None
    place(network, torch.device("cpu"), dtypes.storage, then)
    if wanted.compile == "cuda_graphs":
        log.info("compile cuda_graphs: ComfyUI moves weights, so that only blocks are compiled")
    return network if wanted.compile == "off" else compiled(network)


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
