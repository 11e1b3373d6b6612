"""Where weights live and in which dtype: policy, kept out of the networks."""

import copy
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from .errors import SettingError

DTYPES = ("auto", "float32", "bfloat16", "float16")

BY_NAME = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

Network = TypeVar("Network", bound=nn.Module)


@runtime_checkable
class KeepsFloat32(Protocol):
    """A network that names the modules whose weights are never cast down."""

    def float32_modules(self) -> tuple[nn.Module, ...]: ...


def float32_modules(network: nn.Module) -> tuple[nn.Module, ...]:
    """The modules of a network whose weights are never cast down."""
    return network.float32_modules() if isinstance(network, KeepsFloat32) else ()


def device_of(network: nn.Module) -> torch.device:
    """Where a network computes: what it says itself, where a host streams its weights to the
    device while it runs, else where its weights lie."""
    return getattr(network, "compute_device", None) or next(network.parameters()).device


def pick_device() -> torch.device:
    """The best device of this machine."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    if hasattr(torch, "xpu") and torch.xpu.is_available():
        return torch.device("xpu")
    return torch.device("cpu")


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype that a name of `DTYPES` means on a device.

    "auto" is the fastest that is safe: bfloat16 where the hardware computes in it, never float16,
    whose range Stage B and the image encoder can leave.
    Raises SettingError for an unknown name, and for float16 on the CPU, where it is slow.
    """
    if name == "auto":
        return torch.bfloat16 if _computes_bfloat16(device) else torch.float32
    if name not in BY_NAME:
        raise SettingError(f"dtype is {name!r}; choose one of {', '.join(DTYPES)}.")
    if name == "float16" and device.type == "cpu":
        raise SettingError(
            "dtype float16 is slow and inexact on the CPU; choose auto, float32 or bfloat16."
        )
    return BY_NAME[name]


def place(
    network: Network,
    device: torch.device,
    dtype: torch.dtype,
    then: Callable[[nn.Module], object] | None = None,
) -> Network:
    """Moves and casts a network's weights for inference, one tensor at a time.

    What `float32_modules()` names stays float32. All weights become copies: those mapped from a
    file lie at odd addresses, where kernels round differently, and pin the file.
    then: called with each module once its own weights are placed.
    """
    exact = {inner for module in float32_modules(network) for inner in module.modules()}
    network.eval().requires_grad_(False)
    for module in network.modules():
        for tensor in own_tensors(module).values():
            if tensor.is_floating_point():
                target = torch.float32 if module in exact else dtype
                tensor.data = tensor.data.to(device, target, copy=True)
            else:
                tensor.data = tensor.data.to(device, copy=True)
        if then is not None:
            then(module)
    return network


def twin(network: Network) -> Network:
    """A network of its own modules that holds the very same weights."""
    weights = chain(network.parameters(), network.buffers())
    return copy.deepcopy(network, {id(tensor): tensor for tensor in weights})


def own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers that a module itself holds."""
    both = (module.named_parameters(recurse=False), module.named_buffers(recurse=False))
    return dict(chain(*both))


def weight_bytes(network: nn.Module, shared_with: nn.Module | None = None) -> int:
    """What a network's weights take in memory, but for those that it shares with another."""
    tensors = chain(network.parameters(), network.buffers())
    theirs = chain(shared_with.parameters(), shared_with.buffers()) if shared_with else ()
    shared = {id(tensor) for tensor in theirs}
    own = (tensor for tensor in tensors if id(tensor) not in shared)
    return sum(plain.nbytes for tensor in own for plain in plain_tensors(tensor))


def plain_tensors(tensor: Tensor) -> Iterator[Tensor]:
    """The tensors that really hold memory: a quantised one is made of several."""
    if not hasattr(tensor, "__tensor_flatten__"):
        yield tensor
        return
    names, _ = _flattened(tensor)
    for name in names:
        yield from plain_tensors(getattr(tensor, name))


def rebuilt(tensor: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """The tensor with each plain one inside replaced by `change` of it; a parameter stays one."""
    if not hasattr(tensor, "__tensor_flatten__"):
        changed = change(tensor.detach())
    else:
        names, about = _flattened(tensor)
        inner = {name: rebuilt(getattr(tensor, name), change) for name in names}
        unflatten: Any = type(tensor).__tensor_unflatten__  # type: ignore[attr-defined]
        changed = unflatten(inner, about, tensor.shape, tensor.stride())
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(changed, requires_grad=tensor.requires_grad)
    return changed


def _flattened(tensor: Any) -> tuple[list[str], Any]:
    """The protocol that torch.compile too uses for tensors made of tensors."""
    return tensor.__tensor_flatten__()


def _computes_bfloat16(device: torch.device) -> bool:
    """Whether the hardware itself multiplies bfloat16, not an emulation."""
    if device.type == "cpu":
        # Private names, the only ones torch has for this; without them the answer is "no".
        queries = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(bool(getattr(torch.cpu, query, bool)()) for query in queries)
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    if device.type == "mps":
        return _can_make_bfloat16(device)
    return device.type == "xpu"


def _can_make_bfloat16(device: torch.device) -> bool:
    """macOS before 14 refuses bfloat16 on its GPU."""
    try:
        torch.ones(1, device=device, dtype=torch.bfloat16)
    except (RuntimeError, TypeError):
        return False
    return True
