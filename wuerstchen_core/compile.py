"""The networks' repeated blocks through torch.compile; for inference, without gradients.

Blocks of a kind with weights of the same shapes are compiled once in a process, for all networks:
the weights are inputs of the compiled code, so other values compile nothing. Another picture size,
batch or text length makes torch compile once more, for any number; the next ones compile nothing.

Compiled code is kept on disk by torch itself, in TORCHINDUCTOR_CACHE_DIR, else in a folder of the
system's temporary one; other processes start from there.
"""

import logging
import zlib
from collections.abc import Callable, Iterator
from functools import cache, cached_property
from types import FunctionType
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from .cuda_graphs import CudaGraphs, RecordedNetwork, recorded
from .fallback import Fallback
from .layers import AttnBlock, ResBlock, TimestepBlock
from .residency import Network, device_of, twin

logger = logging.getLogger(__name__)

# A backend of torch.compile: its name, or (graph, example inputs) -> callable.
Backend: TypeAlias = str | Callable[..., Any]


def compiled(network: Network, cuda_graphs: bool = False, backend: Backend = "inductor") -> Network:
    """A twin of Stage B or C that runs compiled blocks; both hold the same weights, `network` stays
    eager.

    cuda_graphs: also record its steps, on a CUDA device (`cuda_graphs.py`).
    Nothing is compiled before a block first runs. Where that fails (no C++ compiler, no Triton, …)
    the twin runs eagerly and says so once in the log.
    """
    name = type(network).__name__
    made = twin(network)
    fallback = Fallback(f"{name} runs uncompiled")
    for module in made.modules():
        if type(module) in _COMPILED:
            module.__class__ = _COMPILED[type(module)]
            module.backend, module.fallback = backend, fallback  # type: ignore[assignment]
    if cuda_graphs and (device := device_of(network)).type != "cuda":
        logger.warning("%s runs without CUDA graphs: it computes on %s", name, device)
    elif cuda_graphs:
        recorded(made, CudaGraphs(device))
    return made


class CompiledBlock(nn.Module):
    """Mixed into a block's class. Hooks on the block itself are called outside of compiled code."""

    backend: Backend
    fallback: Fallback

    def forward(self, *args: Any, **options: Any) -> Tensor:
        plain = super().forward
        inputs = [_alike(arg) for arg in args]
        return self.fallback.run(
            lambda: self._code(inputs)(self, *inputs, **options), lambda: plain(*inputs, **options)
        )

    def _code(self, inputs: list[Any]) -> Callable[..., Tensor]:
        kinds = tuple(type(value).__name__ for value in inputs)
        return _compiled_forward(type(self), f"{self._weights}_{'_'.join(kinds)}", self.backend)

    @cached_property
    def _weights(self) -> str:
        """A word for what the weights are, but for their values."""
        weights = [
            (name, type(p).__name__, str(p.dtype), tuple(p.shape))
            for name, p in self.named_parameters()
        ]
        return f"{zlib.crc32(repr(weights).encode()):08x}"


_COMPILED: dict[type[nn.Module], type[CompiledBlock]] = {
    kind: type(f"Compiled{kind.__name__}", (CompiledBlock, kind), {})
    for kind in (ResBlock, TimestepBlock, AttnBlock)
}


@cache
def _compiled_forward(
    kind: type[CompiledBlock], inputs: str, backend: Backend
) -> Callable[..., Tensor]:
    """The eager forward of a kind of block, compiled when it is called. inputs: what tells calls
    apart that have little in common.

    torch keeps compiled code with the code object, eight versions at most, and by its name it
    remembers which sizes change. So these calls get a code object and a name of their own, and all
    eight versions serve picture sizes, batches and lengths of text.
    """
    plain: FunctionType = super(CompiledBlock, kind).forward  # type: ignore[assignment]
    code = plain.__code__.replace(co_name=f"{kind.__name__}_{inputs}")
    own = FunctionType(code, plain.__globals__, None, plain.__defaults__, plain.__closure__)
    # fullgraph: a ninth version is an error, which is heard of, not eager code, which is not.
    return torch.compile(own, fullgraph=True, backend=backend)


def _alike(value: Any) -> Any:
    """A block's argument, with nothing but sizes for compiled code to depend on: it would also
    depend on strides, and on all sizes of the tensor that a view is of."""
    if isinstance(value, tuple):
        return tuple(_alike(item) for item in value)
    return value.contiguous().data if isinstance(value, Tensor) else value


def outside_compiled_code(network: nn.Module) -> Iterator[nn.Module]:
    """`network.modules()` less those inside of what is compiled or recorded, where hooks would be
    traced, or be called while recording and never again."""
    yield network
    if not isinstance(network, (CompiledBlock, RecordedNetwork)):
        for child in network.children():
            yield from outside_compiled_code(child)
