"""A fast way to compute something, and the plain way for when the fast one fails."""

import logging
from collections.abc import Callable
from typing import TypeVar

import torch

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


class Fallback:
    """Takes the fast way until it fails where the plain one works, then says so once in the log."""

    def __init__(self, loses: str) -> None:
        """loses: what it means that the fast way fails, the beginning of a sentence."""
        self._loses = loses
        self._fast_works = True

    def run(self, fast: Callable[[], Result], plain: Callable[[], Result]) -> Result:
        """What `fast` gives, else what `plain` does; raises what `plain` raises, and
        torch.OutOfMemoryError, which is no fault of either way."""
        if not self._fast_works:
            return plain()
        try:
            return fast()
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            reason = _in_short(error)
        result = plain()  # out here: the error's traceback holds the failed attempt's tensors
        self._fast_works = False
        logger.warning("%s: %s", self._loses, reason)
        return result


def _in_short(error: Exception) -> str:
    """The first two lines: compilers head theirs with one that says who failed."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) or type(error).__name__
