"""The U-net of both Stage Bs: levels of blocks, halved on the way down, doubled on the way up.

Sources: diffusers `modeling_wuerstchen_diffnext.py`; dome272/Wuerstchen `modules.py` (`DiffNeXt`,
`Paella`).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, TypeAlias

from torch import Tensor, nn

from .layers import (
    AttnBlock,
    ChannelNorm2d,
    KeyValue,
    Ops,
    ResBlock,
    TimestepBlock,
    Wraps,
    nchw,
    nhwc,
)

# (level, channels of the skip that it reads) -> the block of a letter C.
Convolution: TypeAlias = Callable[[int, int], ResBlock]


class Levels(Protocol):
    """What a config says of the levels: one entry of each a level, the largest grid first."""

    @property
    def c_hidden(self) -> tuple[int, ...]: ...

    @property
    def nhead(self) -> tuple[int, ...]: ...

    @property
    def blocks(self) -> tuple[int, ...]:
        """How often a level repeats its letters."""
        ...

    @property
    def level_config(self) -> tuple[str, ...]:
        """A level's letters: C(onvolution), T(imestep), A(ttention)."""
        ...

    @property
    def level_dropout(self) -> tuple[float, ...]: ...

    @property
    def c_r(self) -> int: ...

    @property
    def c_cond(self) -> int: ...


def down_levels(config: Levels, convolution: Convolution, ops: Ops) -> nn.ModuleList:
    """The levels on the way down; each but the first begins with a halving."""
    hidden, levels = config.c_hidden, nn.ModuleList()
    for i in range(len(hidden)):
        level = nn.ModuleList()
        if i > 0:
            down = ops.Conv2d(hidden[i - 1], hidden[i], kernel_size=2, stride=2)
            level.append(nn.Sequential(ChannelNorm2d(), down))
        for _ in range(config.blocks[i]):
            level.extend(_group(config, i, 0, convolution, ops))
        levels.append(level)
    return levels


def up_levels(config: Levels, convolution: Convolution, ops: Ops) -> nn.ModuleList:
    """The levels on the way up, the deepest first; the others' first blocks read a skip."""
    hidden, levels = config.c_hidden, nn.ModuleList()
    for i in reversed(range(len(hidden))):
        level = nn.ModuleList()
        for j in range(config.blocks[i]):
            reads_skip = j == 0 and i < len(hidden) - 1
            level.extend(_group(config, i, hidden[i] if reads_skip else 0, convolution, ops))
        if i > 0:
            up = ops.ConvTranspose2d(hidden[i], hidden[i - 1], kernel_size=2, stride=2)
            level.append(nn.Sequential(ChannelNorm2d(), up))
        levels.append(level)
    return levels


def _group(
    config: Levels, i: int, skip: int, convolution: Convolution, ops: Ops
) -> Iterator[nn.Module]:
    """One repetition of level i's letters; its first block reads the skip."""
    c = config.c_hidden[i]
    for position, letter in enumerate(config.level_config[i]):
        if letter == "C":
            yield convolution(i, skip if position == 0 else 0)
        elif letter == "T":
            yield TimestepBlock(c, config.c_r, ops)
        elif letter == "A":
            yield AttnBlock(c, config.c_cond, config.nhead[i], config.level_dropout[i], ops)
        else:
            raise ValueError(f"level_config has the letter {letter!r}; C, T and A are known.")


def run_levels(
    down: Iterable[nn.Module],
    up: Iterable[nn.Module],
    h: Tensor,
    modulations: Iterator[Tensor],
    text: Iterator[KeyValue],
    maps: Iterator[Tensor | None],
    wraps: Wraps,
) -> Tensor:
    """B×H×W×C through all levels. maps: what the convolution blocks of each level read beside."""
    outputs: list[Tensor] = []
    for level in down:
        h = _run_level(level, h, modulations, text, next(maps), None, wraps)  # type: ignore[arg-type]
        outputs.append(h)
    outputs.pop()  # the deepest level's output goes on as h itself
    for i, level in enumerate(up):
        skip = outputs.pop() if i > 0 else None
        h = _run_level(level, h, modulations, text, next(maps), skip, wraps)  # type: ignore[arg-type]
    return h


def _run_level(
    level: Sequence[nn.Module],
    h: Tensor,
    modulations: Iterator[Tensor],
    text: Iterator[KeyValue],
    beside: Tensor | None,
    skip: Tensor | None,
    wraps: Wraps,
) -> Tensor:
    for block in level:
        if isinstance(block, ResBlock):
            h = block(h, *(part for part in (skip, beside) if part is not None), wraps=wraps)
            skip = None  # only a level's first block reads the skip
        elif isinstance(block, TimestepBlock):
            h = block(h, next(modulations))
        elif isinstance(block, AttnBlock):
            h = block(h, next(text, None))
        else:  # down- or upsampling
            h = nhwc(block(nchw(h)))
    return h
