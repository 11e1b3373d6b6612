"""A network's config from its weights' names and shapes, for files that come without config.json.

Names are those of diffusers (see `rename.py`). What shapes do not tell takes the value of every
released checkpoint: heads of 64 channels, patches of 2×2 px, the strides of EfficientNetV2.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ..errors import MismatchedCheckpointError
from ..image_encoder import EFFICIENTNET_V2_L, BackboneStage, ImageEncoderConfig
from ..stage_a import StageAConfig
from ..stage_b import StageBConfig
from ..stage_c import StageCConfig
from ..v1.paella import PaellaConfig
from ..v1.stage_c import StageCV1Config

Shapes = Mapping[str, tuple[int, ...]]

HEAD_WIDTH = 64
PATCH_AREA = 4
PAELLA_HEADS = 16  # whatever the width
_BACKBONE_STRIDES = (1, 2, 2, 2, 1, 2, 1)  # of the six or seven rows that EfficientNetV2 has


def derive_stage_c(shapes: Shapes) -> StageCConfig:
    c, c_in = shapes["projection.weight"][:2]
    return StageCConfig(
        c_in=c_in,
        c=c,
        c_cond=shapes["cond_mapper.0.weight"][1],
        c_r=shapes["blocks.1.mapper.weight"][1],
        depth=-(-_count(shapes, "blocks.") // 3),
        nhead=_heads(c),
    )


def derive_stage_c_v1(shapes: Shapes) -> StageCV1Config:
    return StageCV1Config(**vars(derive_stage_c(shapes)))


class _Levels(NamedTuple):
    """What the levels of a U-net tell; fields of its config."""

    c_r: int
    c_hidden: tuple[int, ...]
    blocks: tuple[int, ...]
    level_config: tuple[str, ...]
    kernel_size: int


def _levels(shapes: Shapes) -> _Levels:
    levels = range(_count(shapes, "down_blocks."))
    letters = [_letters(shapes, f"down_blocks.{i}.") for i in levels]
    groups = [_shortest_period(word) for word in letters]
    kernels = [_first(shapes, rf"down_blocks\.{i}\.\d+\.depthwise\.weight") for i in levels]
    return _Levels(
        c_r=_first(shapes, r"down_blocks\.\d+\.\d+\.mapper\.weight")[1],
        c_hidden=tuple(kernel[0] for kernel in kernels),
        blocks=tuple(len(w) // len(g) for w, g in zip(letters, groups, strict=True)),
        level_config=tuple(groups),
        kernel_size=kernels[0][-1],
    )


def derive_stage_b(shapes: Shapes) -> StageBConfig:
    levels = _levels(shapes)
    c_cond, clip_embd = shapes["clip_mapper.weight"]
    inject = tuple(f"effnet_mappers.{i}.weight" in shapes for i in range(len(levels.blocks)))
    mapper = _first(shapes, r"effnet_mappers\.\d+\.weight") if any(inject) else None
    return StageBConfig(
        c_in=shapes["embedding.1.weight"][1] // PATCH_AREA,
        c_out=shapes["clf.1.weight"][0] // (2 * PATCH_AREA),
        c_cond=c_cond,
        nhead=tuple(
            _heads(c) if "A" in group else -1
            for c, group in zip(levels.c_hidden, levels.level_config, strict=True)
        ),
        inject_effnet=inject,
        effnet_embd=mapper[1] if mapper else StageBConfig.effnet_embd,
        clip_embd=clip_embd,
        **levels._asdict(),
    )


def derive_stage_b_v1(shapes: Shapes) -> PaellaConfig:
    levels = _levels(shapes)
    c_cond, byt5_embd = shapes["byt5_mapper.weight"]
    num_labels, c_in = shapes["in_mapper.0.weight"]
    return PaellaConfig(
        c_in=c_in,
        c_out=shapes["out_mapper.1.weight"][1],
        num_labels=num_labels,
        c_cond=c_cond,
        nhead=tuple(PAELLA_HEADS if "A" in group else -1 for group in levels.level_config),
        effnet_embd=shapes["effnet_mapper.weight"][1],
        byt5_embd=byt5_embd,
        **levels._asdict(),
    )


def derive_stage_a(shapes: Shapes) -> StageAConfig:
    levels = _count(shapes, "down_blocks.") // 2
    latent_channels, embed_dim = shapes[f"down_blocks.{2 * levels - 1}.0.weight"][:2]
    return StageAConfig(
        in_channels=shapes["in_block.1.weight"][1] // PATCH_AREA,
        out_channels=shapes["out_block.0.weight"][0] // PATCH_AREA,
        levels=levels,
        bottleneck_blocks=_count(shapes, "up_blocks.") - 1 - 2 * (levels - 1),
        embed_dim=embed_dim,
        latent_channels=latent_channels,
        num_vq_embeddings=shapes["vquantizer.embedding.weight"][0],
    )


def derive_image_encoder(shapes: Shapes) -> ImageEncoderConfig:
    """Raises MismatchedCheckpointError for a backbone whose strides cannot be known."""
    rows = _count(shapes, "backbone.") - 2
    if rows not in (6, 7):
        raise MismatchedCheckpointError(
            f"this image encoder's backbone has {rows} stages and EfficientNetV2 has 6 or 7, so "
            "its strides are not known; put the config.json that names its stages beside it."
        )
    stages = tuple(_backbone_stage(shapes, row) for row in range(1, rows + 1))
    stem, last = shapes["backbone.0.0.weight"][0], shapes[f"backbone.{rows + 1}.0.weight"][0]
    published = (ImageEncoderConfig(), EFFICIENTNET_V2_L)
    known = {(one.stem, one.stages): one.effnet for one in published}
    return ImageEncoderConfig(
        c_latent=shapes["mapper.0.weight"][0],
        c_cond=last,
        effnet=known.get((stem, stages), "efficientnet_v2"),
        stem=stem,
        stages=stages,
    )


class TowerSizes(NamedTuple):
    """What the shapes of a CLIP text tower tell."""

    vocabulary: int
    positions: int
    width: int
    inner_width: int
    layers: int
    heads: int


def derive_text_tower(shapes: Shapes) -> TowerSizes:
    """Names are those of `towers.Tower`."""
    vocabulary, width = shapes["embeddings.token_embedding.weight"]
    return TowerSizes(
        vocabulary=vocabulary,
        positions=shapes["embeddings.position_embedding.weight"][0],
        width=width,
        inner_width=shapes["encoder.layers.0.mlp.fc1.weight"][0],
        layers=_count(shapes, "encoder.layers."),
        heads=_heads(width),
    )


def _backbone_stage(shapes: Shapes, row: int) -> BackboneStage:
    layers = _count(shapes, f"backbone.{row}.")
    block = f"backbone.{row}.0.block."
    hidden, c_in = shapes[f"{block}0.0.weight"][:2]
    last = _count(shapes, block) - 1
    return BackboneStage(
        fused=not any(name.startswith(f"{block}2.fc1.") for name in shapes),
        expand=hidden // c_in if last > 0 else 1,
        stride=_BACKBONE_STRIDES[row - 1],
        channels=shapes[f"{block}{last}.0.weight"][0],
        layers=layers,
    )


def _letters(shapes: Shapes, level: str) -> str:
    """A level's blocks in order: C(onvolution), T(imestep), A(ttention)."""
    marks = {"depthwise.weight": "C", "mapper.weight": "T", "kv_mapper.1.weight": "A"}
    found = {int(number): marks[rest] for number, rest in _below(shapes, level) if rest in marks}
    return "".join(found[number] for number in sorted(found))


def _shortest_period(word: str) -> str:
    """ "CTACTA" -> "CTA"."""
    lengths = (n for n in range(1, len(word)) if len(word) % n == 0)
    return next((word[:n] for n in lengths if word[:n] * (len(word) // n) == word), word)


def _heads(channels: int) -> int:
    if channels % HEAD_WIDTH:
        raise MismatchedCheckpointError(
            f"these weights are {channels} wide, which is no multiple of {HEAD_WIDTH}, so the "
            "number of attention heads is not known; put their config.json beside them."
        )
    return channels // HEAD_WIDTH


def _count(shapes: Shapes, prefix: str) -> int:
    """How many numbered modules follow a prefix; some of them have no weights."""
    count = max((int(number) for number, _ in _below(shapes, prefix)), default=-1) + 1
    if count > len(shapes):  # a number that somebody made up, not one of a module
        raise ValueError(f"{prefix}{count - 1}")
    return count


def _below(shapes: Iterable[str], prefix: str) -> Iterable[tuple[str, str]]:
    for name in shapes:
        number, _, rest = name.removeprefix(prefix).partition(".")
        if name.startswith(prefix) and number.isdecimal():
            yield number, rest


def _first(shapes: Shapes, pattern: str) -> tuple[int, ...]:
    for name, shape in shapes.items():
        if re.fullmatch(pattern, name):
            return shape
    raise KeyError(pattern)
