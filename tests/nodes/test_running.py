"""A network at work for a node: cancelled within a step, and short of memory."""

from __future__ import annotations

import gc
import weakref
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from comfyui_wuerstchen.nodes.runtime import PlainSurroundings, running, use
from comfyui_wuerstchen.wuerstchen_core.errors import Cancelled


@dataclass
class CancelledAfter(PlainSurroundings):
    """Somebody cancels when it was asked for `questions` times."""

    questions: int

    def check_cancelled(self) -> None:
        self.questions -= 1
        if self.questions < 0:
            raise Cancelled


class Counting(nn.Linear):
    def __init__(self) -> None:
        super().__init__(2, 2)
        self.calls = 0

    def forward(self, input: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(input)


def test_cancel_does_not_wait_for_the_end_of_a_step() -> None:
    layers = [Counting() for _ in range(4)]
    network = nn.Sequential(*layers)
    with use(CancelledAfter(2)), pytest.raises(Cancelled), running(lambda: network):
        network(torch.zeros(1, 2))
    assert [layer.calls for layer in layers] == [1, 1, 0, 0]
    network(torch.zeros(1, 2))  # nobody asks any more
    assert [layer.calls for layer in layers] == [2, 2, 1, 1]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
    ids=["gpu", "cpu", "python"],
)
def test_out_of_memory_says_what_helps_and_lets_go(error: Exception) -> None:
    kept: list[weakref.ref[Tensor]] = []

    def attempt() -> None:
        large = torch.zeros(8)
        kept.append(weakref.ref(large))
        raise error

    with (
        pytest.raises(torch.OutOfMemoryError, match="batch_size"),
        running(lambda: nn.Linear(2, 2)),
    ):
        attempt()
    gc.collect()
    assert kept[0]() is None


def test_other_errors_pass_unchanged() -> None:
    with pytest.raises(RuntimeError, match="^shapes$"), running(lambda: nn.Linear(2, 2)):
        raise RuntimeError("shapes")


def test_running_out_while_weights_are_read_is_said_in_words() -> None:
    def read() -> nn.Module:
        raise MemoryError

    with pytest.raises(torch.OutOfMemoryError, match="16-bit"), running(read):
        pass
