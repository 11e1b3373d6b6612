"""A network's whole step recorded as a CUDA graph and replayed, without Python in between.

A graph reads and writes fixed addresses. So each recording has input tensors of its own, into
which a step's inputs are copied, and serves one set of shapes and dtypes.
"""

import weakref
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from itertools import chain
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from .fallback import Fallback
from .layers import Times
from .residency import plain_tensors

# The latest shapes of a network that stay recorded: with and without guidance, and of a second
# picture size or batch.
MOST_RECORDINGS = 4

# (x, time, what `prepare` gave) -> eps: a network's forward.
Step: TypeAlias = Callable[[Tensor, Times, Any], Tensor]
# Records a call and gives what repeats it: on the same tensors, into the same result.
Record: TypeAlias = Callable[[Callable[[], Tensor]], Callable[[], Tensor]]


def recorded(network: nn.Module, record: Record) -> None:
    """Makes a Stage B or C replay its steps. Where recording fails it runs them one by one, and
    says so once in the log.

    record: `CudaGraphs`, on the network's device.
    """
    name = type(network).__name__
    network.__class__ = type(f"Recorded{name}", (RecordedNetwork, type(network)), {})
    network.recordings = Recordings(record)  # type: ignore[assignment]
    network.fallback = Fallback(f"{name} runs without CUDA graphs")  # type: ignore[assignment]


class RecordedNetwork(nn.Module):
    """Mixed into a network's class. Hooks on the network itself are called at every step."""

    recordings: "Recordings"
    fallback: Fallback

    def forward(self, x: Tensor, t: Times, context: Any) -> Tensor:
        plain = super().forward
        return self.fallback.run(
            lambda: self.recordings.run(plain, self, x, t, context), lambda: plain(x, t, context)
        )


class Recordings:
    """A network's step, recorded once for each set of its inputs' shapes and dtypes.

    Not for two threads at once.
    """

    def __init__(self, record: Record) -> None:
        self._record = record
        self._known: dict[Any, _Recording] = {}  # the latest last
        self._addresses: list[int] = []

    def run(self, step: Step, network: nn.Module, x: Tensor, t: Times, context: Any) -> Tensor:
        """step(x, t, context), replayed. network: whose weights the step reads."""
        modulations = list(context.modulations.at(t))
        tensors = (x, *modulations, *tensors_of(context))
        shapes = ((tensor.shape, tensor.dtype, tensor.device) for tensor in tensors)
        key = (context.wraps, *shapes)
        recording = self._known.pop(key, None)
        if (recording is None or not recording.holds(context)) and self._have_moved(network):
            self._known.clear()
            recording = None
        if recording is None:
            recording = _Recording(self._record, step, x, modulations, context)
        self._known[key] = recording
        if len(self._known) > MOST_RECORDINGS:
            del self._known[next(iter(self._known))]
        return recording.replay(x, modulations, context)

    def _have_moved(self, network: nn.Module) -> bool:
        """Whether the weights lie elsewhere than when this was last asked, once a picture."""
        before, tensors = self._addresses, chain(network.parameters(), network.buffers())
        self._addresses = [p.data_ptr() for tensor in tensors for p in plain_tensors(tensor)]
        return self._addresses != before


class _Recording:
    """One recorded step and the tensors it reads."""

    def __init__(
        self, record: Record, step: Step, x: Tensor, modulations: list[Tensor], context: Any
    ) -> None:
        self._x = torch.empty_like(x)
        # In one tensor, which one kernel fills.
        self._modulations = torch.cat(modulations, dim=-1)
        widths = [one.shape[-1] for one in modulations]
        rows = _Fixed(self._modulations.split(widths, dim=-1))
        inputs = replace(_copied(context), modulations=rows)
        self._context = list(tensors_of(inputs))
        self._held = weakref.ref(context)
        self._x.copy_(x)
        self._replay = record(lambda: step(self._x, 0.0, inputs))

    def holds(self, context: Any) -> bool:
        return self._held() is context

    def replay(self, x: Tensor, modulations: list[Tensor], context: Any) -> Tensor:
        self._x.copy_(x)
        torch.cat(modulations, dim=-1, out=self._modulations)
        if not self.holds(context):
            for own, given in zip(self._context, tensors_of(context), strict=True):
                own.copy_(given)
            self._held = weakref.ref(context)
        return self._replay().clone()  # the next replay writes over it


class _Fixed:
    """In the place of `layers.Modulations`: those of the time that has been copied in."""

    def __init__(self, modulations: tuple[Tensor, ...]) -> None:
        self._modulations = modulations

    def at(self, _t: Times) -> Iterator[Tensor]:
        return iter(self._modulations)


class CudaGraphs:
    """Records on a stream of its own. All graphs share one pool of memory: none runs while another
    does, and what one gives stays allocated."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, step: Callable[[], Tensor]) -> Callable[[], Tensor]:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self._device):
            current = torch.cuda.current_stream()
            self._stream.wait_stream(current)
            with torch.cuda.stream(self._stream):  # a recording that fails does not switch back
                for _ in range(2):  # compiling, tuning and the libraries' setting up come first:
                    step()  # they cannot be recorded
                # "thread_local": other threads may go on using the device.
                with torch.cuda.graph(
                    graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
                ):
                    result = step()
            current.wait_stream(self._stream)

        def replay() -> Tensor:
            graph.replay()
            return result

        return replay


def tensors_of(context: Any) -> Iterator[Tensor]:
    """All tensors in a context's lists and tuples, in order; modulations are none."""
    if isinstance(context, Tensor):
        yield context
    elif isinstance(context, (list, tuple)):
        for item in context:
            yield from tensors_of(item)
    elif is_dataclass(context):
        for field in fields(context):
            yield from tensors_of(getattr(context, field.name))


def _copied(context: Any) -> Any:
    """The same with copies of the tensors."""
    if isinstance(context, Tensor):
        return context.clone()
    if isinstance(context, (list, tuple)):
        return type(context)(_copied(item) for item in context)
    if is_dataclass(context) and not isinstance(context, type):
        own = {field.name: _copied(getattr(context, field.name)) for field in fields(context)}
        return replace(context, **own)
    return context
