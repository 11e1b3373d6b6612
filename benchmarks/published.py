"""The published networks with random weights: diffusers', and ours made of them.

No file is needed: networks are built on the meta device and filled where they run.
"""

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeAlias

import torch
from diffusers import DDPMWuerstchenScheduler
from diffusers.pipelines.deprecated.wuerstchen import (
    PaellaVQModel,
    WuerstchenDecoderPipeline,
    WuerstchenPrior,
    WuerstchenPriorPipeline,
)
from diffusers.pipelines.deprecated.wuerstchen.modeling_wuerstchen_diffnext import (
    WuerstchenDiffNeXt,
)
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from comfyui_wuerstchen.wuerstchen_core.checkpoints.fit import filled
from comfyui_wuerstchen.wuerstchen_core.fold import fold_embedding_mappers
from comfyui_wuerstchen.wuerstchen_core.optimize import PLAIN, Optimization, placed
from comfyui_wuerstchen.wuerstchen_core.pipeline import Pipeline
from comfyui_wuerstchen.wuerstchen_core.stage_a import StageA, StageAConfig
from comfyui_wuerstchen.wuerstchen_core.stage_b import StageB, StageBConfig
from comfyui_wuerstchen.wuerstchen_core.stage_c import StageC, StageCConfig
from comfyui_wuerstchen.wuerstchen_core.text_encoder import TextEncoder

DEMO = Path(__file__).resolve().parents[1] / "models" / "wuerstchen-demo"


@dataclass(frozen=True)
class Sizes:
    stage_c: StageCConfig
    stage_b: StageBConfig
    stage_a: StageAConfig
    prior_text: CLIPTextConfig
    decoder_text: CLIPTextConfig


def _tower(width: int, layers: int, heads: int, mlp: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=49408,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=mlp,
        hidden_act="gelu",
        projection_dim=width,
    )


def sizes(name: str) -> Sizes:
    """ "published": Würstchen v2's; "tiny": the same shape in small, for tests of the bench."""
    if name == "published":
        return Sizes(
            StageCConfig(c=1536, depth=32, nhead=24, c_cond=1280),
            StageBConfig(),
            StageAConfig(),
            _tower(1280, 32, 20, 5120),
            _tower(1024, 24, 16, 4096),
        )
    return Sizes(
        StageCConfig(c=128, depth=2, nhead=2, c_cond=64),
        StageBConfig(
            c_hidden=(32, 64, 64, 128),
            nhead=(-1, 1, 1, 2),
            blocks=(1, 2, 2, 1),
            c_cond=64,
            clip_embd=64,
        ),
        StageAConfig(embed_dim=64, bottleneck_blocks=2, num_vq_embeddings=64),
        _tower(64, 1, 1, 128),
        _tower(64, 1, 1, 128),
    )


class _Decoder(WuerstchenDiffNeXt):
    """diffusers' own, but for the start values, which take it minutes and are overwritten here."""

    def _init_weights(self, m: nn.Module) -> None:
        del m


# diffusers': text to embeddings, embeddings to pictures.
Pipelines: TypeAlias = tuple[WuerstchenPriorPipeline, WuerstchenDecoderPipeline]


@dataclass
class Reference:
    """diffusers' networks. `cast` goes up to float32 and back without loss."""

    prior: WuerstchenPrior
    decoder: WuerstchenDiffNeXt
    vqgan: PaellaVQModel
    prior_text: CLIPTextModel
    decoder_text: CLIPTextModel
    tokenizer: CLIPTokenizer

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        return self.prior, self.decoder, self.vqgan, self.prior_text, self.decoder_text

    @property
    def device(self) -> torch.device:
        return self.prior.device

    def towers(self) -> tuple[TextEncoder, TextEncoder]:
        return (
            TextEncoder(self.tokenizer, self.prior_text),
            TextEncoder(self.tokenizer, self.decoder_text),
        )

    def cast(self, dtype: torch.dtype) -> None:
        for network in self.networks:
            network.to(dtype)

    def pipelines(self, compiled: bool = False) -> Pipelines:
        """Silent ones around these networks; compiled as their documentation tells."""
        prior = WuerstchenPriorPipeline(
            self.tokenizer, self.prior_text, self.prior, DDPMWuerstchenScheduler()
        )
        decoder = WuerstchenDecoderPipeline(
            self.tokenizer, self.decoder_text, self.decoder, DDPMWuerstchenScheduler(), self.vqgan
        )
        if compiled:
            prior.prior = torch.compile(self.prior, mode="reduce-overhead", fullgraph=True)
            decoder.decoder = torch.compile(self.decoder, mode="reduce-overhead", fullgraph=True)
        for pipeline in (prior, decoder):
            pipeline.set_progress_bar_config(disable=True)
        return prior, decoder


def empty_reference(config: Sizes) -> Reference:
    """diffusers' networks on the meta device."""

    def arguments(stage: StageCConfig | StageBConfig | StageAConfig) -> dict:
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(stage).items()}

    with torch.device("meta"):
        return Reference(
            WuerstchenPrior(**arguments(config.stage_c)),
            _Decoder(**arguments(config.stage_b)),
            PaellaVQModel(**arguments(config.stage_a)),
            CLIPTextModel(config.prior_text),
            CLIPTextModel(config.decoder_text),
            CLIPTokenizer.from_pretrained(DEMO / "wuerstchen" / "tokenizer", local_files_only=True),
        )


def random_reference(config: Sizes, dtype: torch.dtype, device: torch.device) -> Reference:
    reference = empty_reference(config)
    draws = _Draws(dtype, device)
    for network in reference.networks:
        network.to(dtype).to_empty(device=device).eval().requires_grad_(False)
        for name, value in network.named_parameters():
            _fill(name, value, draws)
        for name, value in network.named_buffers():
            _fill_buffer(name, value)
    return reference


class _Draws:
    """Normal numbers drawn once, the same on every device; each tensor reads on where the last one
    ended. Drawing billions would take longer than the bench."""

    COUNT = 2**24 - 3  # a prime, so that rounds do not fall on the same places of other layers

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(0)
        self._numbers = torch.randn(self.COUNT, generator=generator).to(device, dtype)
        self._next = 0

    def fill(self, value: Tensor, deviation: float) -> None:
        flat, done = value.view(-1), 0
        while done < len(flat):
            part = self._numbers[self._next : self._next + len(flat) - done]
            torch.mul(part, deviation, out=flat[done : done + len(part)])
            done += len(part)
            self._next = (self._next + len(part)) % self.COUNT


def _fill(name: str, value: Tensor, draws: _Draws) -> None:
    """Random weights with which activations and samples stay near unit scale, as trained ones do.

    So rounding errors neither vanish nor explode on the way to the picture.
    """
    if value.ndim == 1 and name.endswith("weight"):  # of a norm
        value.fill_(1)
        return
    draws.fill(value, _deviation(name, value))
    if name.startswith(("out.1.", "clf.1.")):  # a sampler's heads: a, then b, which divides
        b = value[len(value) // 2 :]
        b.mul_(0.1)
        if name == "clf.1.bias":
            b.add_(4)  # through the sigmoid: eps is close to x - a, as at the start of training
    elif name == "out_block.0.bias":
        value.add_(0.5)  # grey


def _deviation(name: str, value: Tensor) -> float:
    if name.endswith("gammas"):
        return 0.3
    if value.ndim == 1 or name.endswith(("gamma", "beta")):
        return 0.1
    fan_in = value[0].numel() ** -0.5
    if name.startswith("effnet_mappers"):
        return 0.02  # its authors' start: embeddings are some 40 large
    small = ("mapper.weight", "out.1.weight", "clf.1.weight", "out_block.0.weight")
    return 0.2 * fan_in if name.endswith(small) else fan_in


def _fill_buffer(name: str, value: Tensor) -> None:
    if name.endswith("position_ids"):
        value.copy_(torch.arange(value.shape[-1]).expand(value.shape))
    else:  # a batch norm's statistics
        value.fill_(1 if name.endswith("running_var") else 0)


def ours_of(
    reference: Reference,
    config: Sizes,
    dtype: torch.dtype,
    optimization: Optimization = PLAIN,
) -> Pipeline:
    """Our networks with copies of the same weights, made as our loaders make them."""

    def network(build: Callable[[], nn.Module], state: dict[str, Tensor]) -> nn.Module:
        return placed(filled(build, state), reference.device, dtype, optimization)

    def text(tower: CLIPTextModel) -> TextEncoder:
        uncompiled = replace(optimization, compile="off")
        copied = placed(copy.deepcopy(tower), reference.device, dtype, uncompiled)
        return TextEncoder(reference.tokenizer, copied)

    folded = fold_embedding_mappers(reference.decoder.state_dict(), config.stage_b, dtype)
    return Pipeline(
        network(lambda: StageC(config.stage_c), reference.prior.state_dict()),
        network(lambda: StageB(config.stage_b, folded=True), folded),
        network(lambda: StageA(config.stage_a), reference.vqgan.state_dict()),
        text(reference.prior_text),
        text(reference.decoder_text),
    )
