"""A batch that does not fit into memory, run in parts: the pictures are the same."""

import logging
import math
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from .sampling import Callback, StepInfo

log = logging.getLogger(__name__)

Result = TypeVar("Result")


def in_parts(
    run: Callable[[slice, Callback | None], Tensor],
    batch: int,
    most: int,
    callback: Callback | None = None,
) -> Tensor:
    """Runs a batch in parts of at most `most` samples, smaller ones where memory runs out.

    run: (which samples, callback) -> their results. callback: is told of the steps of all parts as
    of those of one run.
    """
    results: list[Tensor] = []

    def attempt(count: int) -> Tensor:
        start = sum(map(len, results))
        parts = len(results) + math.ceil((batch - start) / count)
        return run(slice(start, start + count), _within(callback, len(results), parts))

    size = math.ceil(batch / math.ceil(batch / most))
    while left := batch - sum(map(len, results)):
        results.append(halving(attempt, min(size, left)))
        size = len(results[-1])
    return results[0] if len(results) == 1 else torch.cat(results)


def halving(attempt: Callable[[int], Result], size: int) -> Result:
    """`attempt(size)`; as long as memory runs out, again with half the size, down to 1."""
    while True:
        try:
            return attempt(size)
        except Exception as error:
            if size == 1 or not is_out_of_memory(error):
                raise
            traceback.clear_frames(error.__traceback__)  # they hold the failed attempt's tensors
        size = math.ceil(size / 2)
        log.info("out of memory: trying again with %d at once", size)


def is_out_of_memory(error: BaseException) -> bool:
    # On the CPU torch raises a plain RuntimeError.
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    )


def _within(callback: Callback | None, part: int, parts: int) -> Callback | None:
    """`callback`, told of a part's steps as of those of the whole."""
    if callback is None or parts == 1:
        return callback

    def report(info: StepInfo) -> None:
        callback(replace(info, step=part * info.steps + info.step, steps=parts * info.steps))

    return report
