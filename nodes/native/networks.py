"""The core's networks as ComfyUI runs them: weights stored in one dtype and computed with in
another, streamed to the device layer by layer, patched by LoRAs.

The core's own networks serve, not ComfyUI's copies of Stable Cascade's blocks: one set of weights
then runs under both kinds of samplers, and both give the same picture.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import comfy.model_management as management  # pyright: ignore[reportMissingImports]
import torch
from torch import Tensor, nn

from ...wuerstchen_core import autoencode
from ...wuerstchen_core.errors import WireError
from ...wuerstchen_core.image_encoder import ImageEncoder
from ...wuerstchen_core.layers import GlobalResponseNorm, Times
from ...wuerstchen_core.memory import needed
from ...wuerstchen_core.stage_a import StageA
from ...wuerstchen_core.stage_b import StageB, StageBContext
from ...wuerstchen_core.stage_c import StageC, StageCContext
from ...wuerstchen_core.v1.paella import Paella

# In transformer_options: the step's time, where the sampler knows it better than sigma tells it.
EXACT_TIME = "wuerstchen_time"

FLOAT8 = tuple(
    getattr(torch, name) for name in dir(torch) if name.startswith("float8_") and "x2" not in name
)


class Hosted(nn.Module):
    """What a network of the core gains inside ComfyUI. Subclasses put the core's class second."""

    compute_dtype = torch.float32
    compute_device = torch.device("cpu")
    stored_small = False  # whether weights are stored in float8

    @property
    def dtype(self) -> torch.dtype:
        """What activations are cast to; the core's networks read it off a weight."""
        return self.compute_dtype

    def float32_modules(self) -> tuple[nn.Module, ...]:
        """As in the core; float8 is too coarse for the few numbers of a norm as well."""
        norms = [module for module in self.modules() if isinstance(module, GlobalResponseNorm)]
        kept: tuple[nn.Module, ...] = super().float32_modules()  # type: ignore[misc]
        return (*kept, *norms) if self.stored_small else kept

    def memory_needed(self, shape: Sequence[int]) -> int:
        """Bytes beside the weights to run on a latent B×C×h×w, of any shape: what came is checked
        where it is used."""
        return needed(self, shape)

    def free_memory(self) -> int:
        """Bytes that ComfyUI's memory management leaves to a running network."""
        return management.get_free_memory(self.compute_device)


class ComfyStageC(Hosted, StageC):
    """Stage C, called by ComfyUI's samplers with text states, by ours with prepared ones."""

    def forward(
        self,
        x: Tensor,
        t: Times,
        context: Tensor | StageCContext,
        control: Any = None,
        transformer_options: Mapping[str, Any] | None = None,
    ) -> Tensor:
        if isinstance(context, Tensor):
            t = _checked_time(t, control, transformer_options)
            context = self.prepare(context)
        return super().forward(x, t, context)


class ComfyStageB(Hosted, StageB):
    """Stage B, called by ComfyUI's samplers with text states and embedding, by ours prepared."""

    def forward(
        self,
        x: Tensor,
        t: Times,
        context: Tensor | StageBContext | None = None,
        control: Any = None,
        transformer_options: Mapping[str, Any] | None = None,
        embedding: Tensor | None = None,
    ) -> Tensor:
        """context: B×T×clip_embd; no tokens mean no text. embedding: in embedding space."""
        if not isinstance(context, StageBContext):
            t = _checked_time(t, control, transformer_options)
            assert embedding is not None
            text = None if context is None or context.shape[1] == 0 else context
            context = self.prepare(embedding, (x.shape[-2], x.shape[-1]), text)
        return super().forward(x, t, context)


class ComfyPaella(Hosted, Paella):
    """v1's Stage B, which only our own sampler calls."""


class ComfyStageA(Hosted, StageA):
    """Stage A."""

    def decode(self, latent: Tensor) -> Tensor:
        """Raises WireError for a latent of another stage or model."""
        if latent.shape[1] != self.config.latent_channels:
            raise WireError(
                f"this latent has {latent.shape[1]} channels; Stage A decodes Stage B's, which "
                f"have {self.config.latent_channels}."
            )
        return autoencode.decode(self, latent)

    def encode(self, pixels: Tensor) -> Tensor:
        return autoencode.encode(self, pixels)


class ComfyImageEncoder(Hosted, ImageEncoder):
    """The image encoder."""


def _checked_time(t: Times, control: Any, options: Mapping[str, Any] | None) -> Times:
    """The step's time. Raises WireError for patches made for the insides of other networks."""
    options = options or {}
    patches = sorted({*options.get("patches", {}), *options.get("patches_replace", {})})
    if patches:
        raise WireError(
            f"this MODEL carries a patch of layers ({', '.join(patches)}) that Würstchen's "
            "networks do not have; remove the node that patches it, such as FreeU."
        )
    if control is not None:
        raise WireError("Würstchen's networks read no ControlNet; remove Apply ControlNet.")
    exact = options.get(EXACT_TIME)
    return t if exact is None else float(exact)
