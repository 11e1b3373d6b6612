"""Weights that rest in host memory and are on the device only while they work.

They never change, so the copies on the device are dropped, not copied back.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import wraps
from itertools import chain
from typing import Concatenate, NamedTuple, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from .residency import Network, own_tensors, plain_tensors, rebuilt, weight_bytes

# Of "streamed": what stays for the whole stage, and how many layers are brought before their turn.
SMALL_LAYER = 64 * 1024  # bytes; below, a copy costs more than it saves
LAYERS_AHEAD = 4

_ALIGNMENT = 512  # bytes; as the devices' own allocators align

P = ParamSpec("P")
R = TypeVar("R")


def offload(network: nn.Module, device: torch.device, streamed: bool) -> None:
    """From now on the weights rest in host memory, while the network computes on `device`.

    streamed: bring them layer by layer, else all at once. To be called once, after all that
    changes weights.
    """
    notes: dict[str, object] = vars(network)  # about the network, not parts of it
    notes["offloaded"] = Offloaded(network, device, streamed)
    notes["compute_device"] = device


def at_work(network: nn.Module) -> AbstractContextManager[None]:
    """Inside, a network can run on `device_of(network)`, wherever its weights rest."""
    offloaded: Offloaded | None = getattr(network, "offloaded", None)
    return offloaded.at_work() if offloaded else nullcontext()


def with_weights(
    function: Callable[Concatenate[Network, P], R],
) -> Callable[Concatenate[Network, P], R]:
    """Decorates what runs a network, its first argument: it is at work meanwhile."""

    @wraps(function)
    def run(network: Network, *args: P.args, **kwargs: P.kwargs) -> R:
        with at_work(network):
            return function(network, *args, **kwargs)

    return run


class Offloaded:
    """A network whose weights rest in host memory, pinned where the device is a CUDA one.

    They are on the device while it is at work; of a `streamed` one only the small layers, those
    that run and the next few.
    """

    def __init__(self, network: nn.Module, device: torch.device, streamed: bool) -> None:
        memory = _HostMemory(weight_bytes(network), pinned=device.type == "cuda")
        layers = [_Layer(module, memory) for module in network.modules() if own_tensors(module)]
        self._passing = {
            layer.module: layer
            for layer in layers
            if streamed and layer.nbytes >= SMALL_LAYER and not any(layer.module.children())
        }
        self._staying = [layer for layer in layers if layer.module not in self._passing]
        self._copier = _Copier(device)
        self._following: dict[_Layer, _Layer] = {}  # which layer ran after which
        self._latest: _Layer | None = None
        self._ahead: dict[_Layer, _Copies] = {}
        self._lock, self._working = threading.RLock(), False

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """May be entered again inside; other threads wait."""
        with self._lock, ExitStack() as cleanup:
            if self._working:
                yield
                return
            self._working = True
            cleanup.callback(self._rest)
            self._bring_staying()  # not here: an error's traceback would keep this frame's copies
            for module in self._passing:
                cleanup.callback(module.register_forward_pre_hook(self._bring).remove)
                cleanup.callback(module.register_forward_hook(self._drop).remove)
            yield

    def _rest(self) -> None:
        self._copier.settle()
        self._working, self._latest, self._ahead = False, None, {}
        for layer in chain(self._staying, self._passing.values()):
            layer.rest()

    def _bring_staying(self) -> None:
        copies = [self._copier.copy(layer) for layer in self._staying]
        for layer, started in zip(self._staying, copies, strict=True):
            layer.set(self._copier.finish(started))

    def _bring(self, module: nn.Module, _args: object) -> None:
        layer = self._passing[module]
        layer.set(self._copier.finish(self._ahead.pop(layer, None) or self._copier.copy(layer)))
        if self._latest is not None:
            self._following[self._latest] = layer
        self._latest = layer
        expected = self._expected(layer)
        if self._ahead.keys() - expected:
            self._copier.settle()  # what is dropped here may still be being written
        self._ahead = {each: self._ahead.get(each) or self._copier.copy(each) for each in expected}

    def _drop(self, module: nn.Module, _args: object, _result: object) -> None:
        self._passing[module].rest()

    def _expected(self, layer: "_Layer") -> list["_Layer"]:
        """The layers to run next, if all goes as the last time."""
        expected: list[_Layer] = []
        following = self._following.get(layer)
        while following not in (None, layer, *expected) and len(expected) < LAYERS_AHEAD:
            expected.append(following)
            following = self._following.get(following)
        return expected


class _Layer:
    """The tensors that a module itself holds: those at rest, or copies of them in use."""

    def __init__(self, module: nn.Module, memory: "_HostMemory") -> None:
        self.module = module
        self.at_rest = {
            name: rebuilt(tensor, memory.hold) for name, tensor in own_tensors(module).items()
        }
        self.nbytes = sum(t.nbytes for held in self.at_rest.values() for t in plain_tensors(held))
        self.rest()

    def rest(self) -> None:
        self.set(self.at_rest)

    def set(self, tensors: dict[str, Tensor]) -> None:
        for name, tensor in tensors.items():
            setattr(self.module, name, tensor)


class _Copies(NamedTuple):
    tensors: dict[str, Tensor]
    finished: torch.Event | None


class _Copier:
    """Copies layers to a device; on CUDA beside what it computes."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def copy(self, layer: _Layer) -> _Copies:
        copies = {
            name: rebuilt(tensor, lambda t: torch.empty_like(t, device=self._device))
            for name, tensor in layer.at_rest.items()
        }
        with self._beside():
            for name, tensor in layer.at_rest.items():
                pairs = zip(plain_tensors(copies[name]), plain_tensors(tensor), strict=True)
                for copy, source in pairs:
                    copy.copy_(source, non_blocking=True)
            return _Copies(copies, self._stream.record_event() if self._stream else None)

    def finish(self, copies: _Copies) -> dict[str, Tensor]:
        """The copies, for what is computed from now on."""
        if copies.finished is not None:
            copies.finished.wait(torch.cuda.current_stream(self._device))
        return copies.tensors

    def settle(self) -> None:
        """What is computed from now on comes after all copies, also those that nobody uses."""
        if self._stream is not None:
            torch.cuda.current_stream(self._device).wait_stream(self._stream)

    @contextmanager
    def _beside(self) -> Iterator[None]:
        """Runs what is inside on the stream for copies.

        The memory to fill belongs to the stream that computes, which gives it out again in its
        own order; so the copies wait for what has been computed there until now.
        """
        if self._stream is None:
            yield
            return
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            yield


class _HostMemory:
    """Room for a network's weights in large chunks whose sizes are powers of two: pinned memory
    is rounded up to those."""

    def __init__(self, nbytes: int, pinned: bool) -> None:
        self._left, self._pinned = nbytes, pinned
        self._chunk = torch.empty(0, dtype=torch.uint8)
        self._used = 0

    def hold(self, tensor: Tensor) -> Tensor:
        """A copy of a tensor in this memory, with the strides it has."""
        start = -(-self._used // _ALIGNMENT) * _ALIGNMENT
        if start + tensor.nbytes > len(self._chunk):
            size = max(1 << max(self._left.bit_length() - 1, 0), tensor.nbytes)
            self._chunk = torch.empty(size, dtype=torch.uint8, pin_memory=self._pinned)
            start = 0
        self._used = start + tensor.nbytes
        self._left -= tensor.nbytes
        held = self._chunk[start : self._used].view(tensor.dtype)
        return held.as_strided(tensor.shape, tensor.stride(), held.storage_offset()).copy_(tensor)
