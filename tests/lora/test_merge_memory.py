"""What merged parts hold on to, how often they read, and how they run."""

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from comfyui_wuerstchen.host.folders import Folders, HostSurroundings
from comfyui_wuerstchen.nodes import NODE_CLASS_MAPPINGS, runtime
from comfyui_wuerstchen.nodes.loaders import part_of
from comfyui_wuerstchen.nodes.parts import Part
from comfyui_wuerstchen.nodes.stored import stored_stage_c
from comfyui_wuerstchen.wuerstchen_core.checkpoints.load import Weights
from comfyui_wuerstchen.wuerstchen_core.guidance import Guidance
from comfyui_wuerstchen.wuerstchen_core.lora.adapters import Difference
from comfyui_wuerstchen.wuerstchen_core.stage_c import StageC

from ..checkpoints.tiny import STAGE_C, networks

CHANGES = {"projection.bias": ((Difference(torch.ones(STAGE_C.c)), 1.0),)}


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path) -> Iterator[None]:
    with runtime.use(HostSurroundings(Folders(tmp_path, tmp_path, tmp_path))):
        yield


class Opener:
    """Weights of random numbers, and how often they were opened."""

    def __init__(self) -> None:
        self.opened = 0
        self.state = networks()["stage_c"].state_dict()

    def __call__(self) -> Weights:
        self.opened += 1
        return Weights(STAGE_C, self.state)

    def part(self) -> Part[StageC]:
        return part_of(stored_stage_c(self, "float32"), "float32", None, "base")


def merge(a: Part[Any], b: Part[Any], ratio: float = 0.5) -> Part[Any]:
    node = NODE_CLASS_MAPPINGS["WuerstchenMergeStageC"]()
    return node.merge(a, b, "weighted_sum", ratio, "float32")[0]


def test_a_merge_is_sampled_as_a_is() -> None:
    guidance, wraps = Guidance(rescale=0.7), (True, False)
    a = Opener().part().sampled(guidance, wraps)
    made = merge(a, Opener().part())
    assert (made.guidance, made.wraps) == (guidance, wraps)


def test_a_merge_lets_go_of_the_networks_that_it_was_made_of() -> None:
    a = Opener().part()
    network = weakref.ref(a.get())
    made = merge(a, Opener().part())
    del a
    gc.collect()
    assert network() is None and made.get() is not None


def test_parts_with_loras_are_freed_at_once() -> None:
    part = Opener().part().changed(CHANGES, "with a LoRA")
    network = weakref.ref(part.get())
    gc.disable()
    try:
        del part
        assert network() is None
    finally:
        gc.enable()


def test_a_chain_of_merges_opens_and_computes_each_once() -> None:
    opener = Opener()
    made = opener.part()
    for _ in range(12):
        made = merge(made, made)
    opener.opened = 0
    content = made.content()
    assert opener.opened <= 2  # the first merge's A and B
    for name, value in content.state.items():
        assert torch.equal(value, opener.state[name])
    assert len(made.made_of) == 1000 and made.made_of.endswith("…")


def test_a_chain_with_loras_between_opens_each_once() -> None:
    opener = Opener()
    made = opener.part()
    for _ in range(8):
        made = merge(made, made.changed(CHANGES, "changed"))
    opener.opened = 0
    bias = made.content().state["projection.bias"]
    assert opener.opened <= 2
    torch.testing.assert_close(bias, opener.state["projection.bias"] + 8 * 0.5)
