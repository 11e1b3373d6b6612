"""How much memory is free, and how much of it a stage needs."""

import ctypes
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import nn

from .geometry import STAGE_B_CELLS, STAGE_C_CELLS
from .image_encoder import ImageEncoder
from .residency import device_of
from .stage_a import StageA
from .stage_b import StageB
from .stage_c import StageC
from .v1.paella import Paella

# Peak memory beside the weights, measured with torch's profiler: values (of the dtype computed
# with) for each latent cell and channel of the widest level.
STAGE_C_VALUES = 14
STAGE_B_VALUES = 5
PAELLA_VALUES = 6
STAGE_A_VALUES = 22
IMAGE_ENCODER_VALUES = 46_200  # for each cell of the embedding
TEXT_TOKENS = 77

# Cells in a strip of Stage A's. On the CPU it fits the cache, and no tensor is so large that the
# system hands out its pages anew each time; elsewhere it keeps the device busy.
CPU_STRIP, DEVICE_STRIP = 4096, 65_536
SHORTEST_STRIP = 4  # rows, where memory allows: at each, layers read two more

_SHARE = 0.9  # of free memory: allocators cannot use all of it
_CGROUPS = Path("/sys/fs/cgroup")


def needed(network: nn.Module, shape: Sequence[int]) -> int:
    """Bytes beside the weights to run a stage on a latent B×C×h×w (the image encoder: to make it).

    Stage A works on one picture at a time, in strips: what the default ones need.
    """
    batch, cells = shape[0], math.prod(shape[2:])
    if isinstance(network, StageC):
        values = STAGE_C_VALUES * cells + 2 * TEXT_TOKENS * network.config.depth
        values *= batch * network.config.c
    elif isinstance(network, (StageB, Paella)):
        config = network.config
        is_v1 = isinstance(network, Paella)
        blocks = sum(
            count * letters.count("A")
            for count, letters in zip(config.blocks, config.level_config, strict=True)
        )
        values = (PAELLA_VALUES if is_v1 else STAGE_B_VALUES) * cells * config.c_hidden[0]
        # v1's attends to the image embedding's cells as to a text's tokens.
        tokens = TEXT_TOKENS + (cells * STAGE_C_CELLS**2 // STAGE_B_CELLS**2 if is_v1 else 0)
        values = batch * (values + 4 * tokens * blocks * max(config.c_hidden))
    elif isinstance(network, StageA):
        height, width = (1, *shape)[-2:]  # what came is checked where it is used
        rows = _default_rows(network, width) + _held_rows(network)
        return _row_bytes(network, width) * min(rows, height)
    else:
        assert isinstance(network, ImageEncoder)
        values = batch * IMAGE_ENCODER_VALUES * cells
    return values * network.dtype.itemsize


def strip_rows(stage_a: StageA, width: int, limit: int | None = None) -> int:
    """How many latent rows of `width` cells a strip has, so that it stays below `limit` bytes:
    by default those that are free."""
    free = available(stage_a) if limit is None else limit
    rows = _default_rows(stage_a, width)
    if free is None:
        return rows
    return max(1, min(rows, free // _row_bytes(stage_a, width) - _held_rows(stage_a)))


def _default_rows(stage_a: StageA, width: int) -> int:
    cells = CPU_STRIP if device_of(stage_a).type == "cpu" else DEVICE_STRIP
    return max(SHORTEST_STRIP, cells // width)


def _held_rows(stage_a: StageA) -> int:
    """What layers hold back: by so much are the first and the last strip taller."""
    return stage_a.config.bottleneck_blocks + 2 * stage_a.config.levels


def _row_bytes(stage_a: StageA, width: int) -> int:
    return STAGE_A_VALUES * width * stage_a.config.embed_dim * stage_a.dtype.itemsize


def samples_at_once(
    network: nn.Module, shape: Sequence[int], branches: int = 1, limit: int | None = None
) -> int:
    """How many samples of the shape B×C×h×w, each run `branches` times in a batch, fit into
    `limit` bytes, by default those that are free; at least one, at most B."""
    free = available(network) if limit is None else limit
    if free is None:
        return shape[0]
    return max(1, min(shape[0], free // needed(network, (branches, *shape[1:]))))


def available(network: nn.Module) -> int | None:
    """Bytes that a network may use where it computes: as it says itself, where a host manages
    memory, else most of what is free; None where nobody knows."""
    managed: Callable[[], int] | None = getattr(network, "free_memory", None)
    if managed is not None:
        return managed()
    free = free_bytes(device_of(network))
    return None if free is None else int(free * _SHARE)


def free_bytes(device: torch.device) -> int | None:
    """Free memory of a device, in bytes; None where the system does not say."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    if device.type == "cpu":
        known = [free for free in (_free_ram(), *free_in_cgroups()) if free is not None]
        return min(known, default=None)
    return None


def _free_ram() -> int | None:
    if sys.platform == "win32":
        return _free_on_windows()
    if sys.platform == "darwin":
        return _free_on_macos()
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return None
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) << 10


def free_in_cgroups(
    root: Path = _CGROUPS, membership: Path = Path("/proc/self/cgroup")
) -> Iterator[int]:
    """What each limit on this process's groups leaves: those of containers and services."""
    if not membership.exists():
        return
    for line in membership.read_text().splitlines():
        _, controllers, own = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        top = root / controllers  # version 1 has a tree for each controller
        names = (
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            if controllers
            else ("memory.max", "memory.current", "inactive_file")
        )
        group = top / own.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(top):
                yield from _left_in(folder, *names)


def _left_in(folder: Path, limit: str, used: str, unused_files: str) -> Iterator[int]:
    try:
        most, now = (folder / limit).read_text().strip(), int((folder / used).read_text())
        lines = (folder / "memory.stat").read_text().splitlines()
    except OSError:  # no such limit here
        return
    if most != "max":
        cached = int(dict(line.split() for line in lines).get(unused_files, 0))
        yield max(0, int(most) - now + cached)


def _free_on_windows() -> int:
    class MemoryStatus(ctypes.Structure):  # MEMORYSTATUSEX of the Windows API
        _fields_ = (
            ("length", ctypes.c_ulong),
            ("load", ctypes.c_ulong),
            *((name, ctypes.c_ulonglong) for name in ("total", "available", "page_total")),
            *((name, ctypes.c_ulonglong) for name in ("page_free", "virtual", "virtual_free")),
            ("extended", ctypes.c_ulonglong),
        )

    status = MemoryStatus(length=ctypes.sizeof(MemoryStatus))
    ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))  # type: ignore[attr-defined]
    return status.available


def _free_on_macos() -> int:
    """Free and inactive pages, as Mach's `host_statistics64` counts them."""
    system = ctypes.CDLL(None)
    counts, length = (ctypes.c_uint32 * 64)(), ctypes.c_uint32(38)
    vm_info = 4  # HOST_VM_INFO64; its first fields are free, active and inactive
    system.host_statistics64(system.mach_host_self(), vm_info, counts, ctypes.byref(length))
    return (counts[0] + counts[2]) * os.sysconf("SC_PAGE_SIZE")
