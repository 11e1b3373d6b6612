"""Peak memory, counted: the same on every run and machine."""

from __future__ import annotations

from collections.abc import Callable

from torch.profiler import ProfilerActivity, profile


def peak_bytes(call: Callable[[], object]) -> int:
    """The most bytes that tensors made during `call` took at one time on the CPU, the result's
    included."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        kept = call()
    changes = [
        event.nbytes()
        for event in recorded.profiler.kineto_results.events()  # type: ignore[union-attr]
        if event.name() == "[memory]"
    ]
    del kept
    now = most = 0
    for change in changes:
        now += change
        most = max(most, now)
    return most
