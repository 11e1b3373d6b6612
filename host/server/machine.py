"""The memory and the device of this machine, in ComfyUI's terms."""

from __future__ import annotations

import os
from typing import Any

import torch

from ...wuerstchen_core.memory import free_bytes
from ...wuerstchen_core.residency import pick_device


def ram() -> tuple[int, int]:
    """(all, free) in bytes; 0 where this system does not say."""
    known = getattr(os, "sysconf_names", {}).keys() >= {"SC_PHYS_PAGES", "SC_PAGE_SIZE"}
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if known else 0
    return total, free_bytes(torch.device("cpu")) or 0


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
