"""Seconds, memory, operations and errors, measured alike on the CPU and on CUDA."""

import ctypes
import gc
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TypeVar

import diffusers
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

T = TypeVar("T")


class Device:
    """What differs between the CPU and CUDA when something is measured."""

    def __init__(self, name: str) -> None:
        self.torch = torch.device(name)
        self.cuda = self.torch.type == "cuda"

    def synchronize(self) -> None:
        if self.cuda:
            torch.cuda.synchronize(self.torch)

    def now(self) -> float:
        """Seconds, read when all that was queued is done."""
        self.synchronize()
        return time.perf_counter()

    def seconds(self, run: Callable[[], object], calls: int = 1) -> float:
        """Of one of `calls` calls, queued one after another."""
        started = self.now()
        for _ in range(calls):
            run()
        return (self.now() - started) / calls

    def timed(self, run: Callable[[], T]) -> tuple[T, float]:
        """What one call gives, and its seconds."""
        started = self.now()
        result = run()
        return result, self.now() - started

    def free(self) -> None:
        """Returns what nobody holds, so that it is not counted as in use."""
        gc.collect()
        if self.cuda:
            torch.cuda.empty_cache()
        elif platform.system() == "Linux":
            ctypes.CDLL(None).malloc_trim(0)

    def in_use(self) -> int:
        """Bytes: of tensors on CUDA, of the whole process on the CPU."""
        self.synchronize()
        return torch.cuda.memory_allocated(self.torch) if self.cuda else _bytes_of("VmRSS")

    def peak_of(self, run: Callable[[], T]) -> tuple[T, int]:
        """What `run` gives, and how many bytes more than before were in use at its worst moment.

        CUDA: torch's own count of allocated memory. CPU: resident memory as the kernel counts it,
        so what libraries allocate beside torch is in it; 0 where the kernel is not Linux.
        """
        self.free()
        before = self.in_use()
        if self.cuda:
            torch.cuda.reset_peak_memory_stats(self.torch)
        elif before:
            Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
        result = run()
        self.synchronize()
        peak = torch.cuda.max_memory_allocated(self.torch) if self.cuda else _bytes_of("VmHWM")
        return result, max(peak - before, 0)

    def available(self) -> int:
        """Bytes that can still be allocated; where only Linux would tell, any number of them."""
        self.free()
        if self.cuda:
            return torch.cuda.mem_get_info(self.torch)[0]
        return _bytes_of("MemAvailable", Path("/proc/meminfo")) or sys.maxsize

    def matrix_rate(self, dtype: torch.dtype, side: int) -> float:
        """Operations a second of a product of two large square matrices; the best of five."""
        a = torch.randn(side, side, device=self.torch, dtype=dtype)
        torch.mm(a, a)
        calls = 10 if self.cuda else 1
        best = min(self.seconds(lambda: torch.mm(a, a), calls) for _ in range(5))
        return 2 * side**3 / best


def _bytes_of(name: str, file: Path = Path("/proc/self/status")) -> int:
    """Bytes that a file of the kernel gives in kB; 0 on systems without it."""
    try:
        found = re.search(rf"{name}:\s+(\d+) kB", file.read_text())
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0


def alternate(
    device: Device, runs: Sequence[Callable[[], object]], rounds: int, calls: int = 1
) -> list[list[float]]:
    """Seconds of each run, in the order A B A B …, so that a change of the machine meets both.

    Each has to be warm already.
    """
    taken: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for run, seconds in zip(runs, taken, strict=True):
            seconds.append(device.seconds(run, calls))
    return taken


def operations(run: Callable[[], object]) -> int:
    """Two for each multiplication with addition, of matrix products and convolutions; meta tensors
    will do."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def error_of(found: Tensor, expected: Tensor) -> float:
    """Root mean square of the difference, relative to that of what is expected."""
    found, expected = found.double().cpu(), expected.double().cpu()
    return ((found - expected).square().mean() / expected.square().mean()).sqrt().item()


def machine(device: Device) -> dict[str, str | int | float]:
    """What the numbers depend on, to be printed with them."""
    return {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device.torch) if device.cuda else "cpu",
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "tf32": str(torch.backends.cuda.matmul.allow_tf32 if device.cuda else False),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else 0.0,
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
    }


def _processor() -> str:
    try:
        found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return f"{found[1] if found else platform.processor()}, {os.cpu_count()} cores"
