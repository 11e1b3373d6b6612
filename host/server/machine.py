"""The memory and the device of this machine, in ComfyUI's terms."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from ...wuerstchen_core.residency import pick_device

MEMINFO = Path("/proc/meminfo")


def ram() -> tuple[int, int]:
    """(all, free) in bytes; 0 where this system does not say."""
    if MEMINFO.exists():
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
        total, free = (int(lines[key].split()[0]) << 10 for key in ("MemTotal", "MemAvailable"))
        return total, free
    if not hasattr(os, "sysconf"):
        return 0, 0
    pages = (
        os.sysconf(name) if name in os.sysconf_names else 0
        for name in ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES")
    )
    total, free = (count * os.sysconf("SC_PAGE_SIZE") for count in pages)
    return total, free


def devices() -> list[dict[str, Any]]:
    """The one device that computes; memory in bytes."""
    device = pick_device()
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info()
        held = torch.cuda.memory_reserved()
        unused = held - torch.cuda.memory_allocated()
        index = torch.cuda.current_device()
        return [
            {
                "name": f"cuda:{index} {torch.cuda.get_device_name(index)}",
                "type": "cuda",
                "index": index,
                "vram_total": total,
                "vram_free": free + unused,
                "torch_vram_total": held,
                "torch_vram_free": unused,
            }
        ]
    total, free = ram()
    return [
        {
            "name": device.type,
            "type": device.type,
            "index": None,
            "vram_total": total,
            "vram_free": free,
            "torch_vram_total": total,
            "torch_vram_free": free,
        }
    ]
