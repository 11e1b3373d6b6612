"""Recorded steps. On the CPU a recording is played by running the step again on the tensors that
were there when it was recorded, which is all that a CUDA graph does."""

import copy
import gc
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from comfyui_wuerstchen.nodes.runtime import PlainSurroundings, running, use
from comfyui_wuerstchen.wuerstchen_core.compile import CompiledBlock, compiled
from comfyui_wuerstchen.wuerstchen_core.cuda_graphs import MOST_RECORDINGS, recorded
from comfyui_wuerstchen.wuerstchen_core.errors import Cancelled
from comfyui_wuerstchen.wuerstchen_core.generate import (
    SamplerSettings,
    sample_stage_b,
    sample_stage_c,
)
from comfyui_wuerstchen.wuerstchen_core.noise import SampleNoise
from comfyui_wuerstchen.wuerstchen_core.stage_b import StageB, StageBConfig
from comfyui_wuerstchen.wuerstchen_core.stage_c import StageC, StageCConfig

from ..reference.named_weights import named_weights

pytestmark = pytest.mark.usefixtures("no_grad")

TIMES = (0.9, 0.5, 0.1)


class Tape:
    """Records by running; counts recordings and replays."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def __call__(self, step: Callable[[], Tensor]) -> Callable[[], Tensor]:
        self.recorded += 1
        result = step()

        def replay() -> Tensor:
            self.replayed += 1
            return result.copy_(step())

        return replay


def _ready(network: Any) -> Any:
    shapes = {name: value.shape for name, value in network.state_dict().items()}
    network.load_state_dict(named_weights(shapes))
    return network.eval().requires_grad_(False)


def stage_c() -> StageC:
    return _ready(StageC(StageCConfig(c=64, depth=2, nhead=2, c_cond=24)))


def stage_b() -> StageB:
    config = StageBConfig(
        c_hidden=(16, 32), nhead=(-1, 1), blocks=(1, 1), level_config=("CT", "CTA"),
        inject_effnet=(False, True), c_cond=24, clip_embd=24,
    )  # fmt: skip
    return _ready(StageB(config))


def taped(network: Any) -> tuple[Any, Tape]:
    tape, twin = Tape(), copy.deepcopy(network)
    recorded(twin, tape)
    return twin, tape


def context_c(network: StageC, seed: int = 0, batch: int = 2, tokens: int = 7) -> Any:
    text = torch.randn(batch, tokens, 24, generator=torch.Generator().manual_seed(seed))
    return network.prepare(text, TIMES)


def test_steps_of_a_picture_are_recorded_once_and_equal_plain_ones() -> None:
    network = stage_c()
    twin, tape = taped(network)
    context, given = context_c(network), context_c(twin)
    kept: list[Tensor] = []
    plain: list[Tensor] = []
    for t in TIMES:
        x = torch.randn(2, 16, 6, 6)
        kept.append(twin(x, t, given))
        plain.append(network(x, t, context))
    # Compared at the end: what a step gave outlives the next one.
    assert all(torch.equal(one, other) for one, other in zip(kept, plain, strict=True))
    assert (tape.recorded, tape.replayed) == (1, 3)


def test_another_prompt_is_copied_in() -> None:
    network = stage_c()
    twin, tape = taped(network)
    x = torch.randn(2, 16, 6, 6)
    first, second = context_c(network, 1), context_c(network, 2)
    for context in (first, second, first, first, second):
        assert torch.equal(twin(x, 0.5, context), network(x, 0.5, context))
    assert tape.recorded == 1
    assert not torch.equal(twin(x, 0.5, first), twin(x, 0.5, second))


def test_a_prompt_where_the_last_one_was_in_memory_is_copied_in() -> None:
    network = stage_c()
    twin, _ = taped(network)
    x = torch.randn(2, 16, 6, 6)
    for seed in range(5):
        context = context_c(network, seed)
        assert torch.equal(twin(x, 0.5, context), network(x, 0.5, context))
        del context


def test_each_shape_is_recorded_and_the_latest_are_kept() -> None:
    network = stage_c()
    twin, tape = taped(network)

    def step(batch: int, side: int = 6, t: float | Tensor = 0.5, tokens: int = 7) -> None:
        context = context_c(network, batch, batch, tokens)
        x = torch.randn(batch, 16, side, side)
        assert torch.equal(twin(x, t, context), network(x, t, context))

    shapes: Sequence[dict[str, Any]] = (
        {"batch": 2},
        {"batch": 1},
        {"batch": 2, "side": 9},
        {"batch": 2, "tokens": 9},
        {"batch": 2, "t": torch.tensor([0.9, 0.1])},
    )
    assert len(shapes) == MOST_RECORDINGS + 1
    for shape in shapes:
        step(**shape)
    assert tape.recorded == len(shapes)
    for shape in shapes[1:]:
        step(**shape)
    assert tape.recorded == len(shapes)
    step(**shapes[0])  # it was the longest unused
    assert tape.recorded == len(shapes) + 1


def test_weights_that_have_moved_are_recorded_anew() -> None:
    network = stage_c()
    twin, tape = taped(network)

    def same() -> bool:
        x = torch.randn(2, 16, 6, 6)
        return torch.equal(twin(x, 0.5, context_c(twin)), network(x, 0.5, context_c(network)))

    assert same()
    for value in (*network.parameters(), *twin.parameters()):
        value.mul_(1.1)
    assert same()
    assert tape.recorded == 1  # what lies where it lay is read anew by every replay
    for value in twin.parameters():
        value.data = value.data.clone()
    assert same()
    assert tape.recorded == 2


@pytest.mark.parametrize("cfg", [0.0, 4.0])
@pytest.mark.parametrize("sampler_name", ["ddpm", "dpmpp_2m"])
def test_whole_samplings_equal_plain_ones(cfg: float, sampler_name: str) -> None:
    settings = SamplerSettings(4, cfg, sampler_name, guidance_end=0.5)
    text = torch.randn(2, 1, 7, 24)
    for network in (stage_c(), stage_b()):
        twin, tape = taped(network)
        results: list[Tensor] = []
        for each in (network, twin):
            noise = SampleNoise((1, 2))
            if isinstance(network, StageC):
                latent = torch.zeros(2, 16, 6, 6)
                results.append(sample_stage_c(each, *text, latent, noise, settings))
            else:
                embedding = torch.ones(2, 16, 3, 3)
                results.append(sample_stage_b(each, embedding, *text, None, noise, settings))
        assert torch.equal(*results)
        assert tape.recorded == (2 if cfg > 1 else 1)  # guided, then alone
        assert tape.replayed == 4


def test_what_cannot_be_recorded_runs_plainly_after_one_warning(
    warnings: Callable[[], list[str]],
) -> None:
    def broken(step: Callable[[], Tensor]) -> Callable[[], Tensor]:
        step()
        raise RuntimeError("operation not permitted when stream is capturing")

    network = stage_c()
    twin = copy.deepcopy(network)
    recorded(twin, broken)
    x = torch.randn(2, 16, 6, 6)
    for seed in range(3):
        context = context_c(network, seed)
        assert torch.equal(twin(x, 0.5, context), network(x, 0.5, context))
    assert warnings() == [
        "StageC runs without CUDA graphs: operation not permitted when stream is capturing"
    ]


def test_without_cuda_only_blocks_are_compiled(warnings: Callable[[], list[str]]) -> None:
    graphs: list[object] = []

    def backend(graph: torch.fx.GraphModule, _inputs: object) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    twin = compiled(stage_c(), cuda_graphs=True, backend=backend)
    for _ in range(2):
        twin(torch.randn(2, 16, 6, 6), 0.5, context_c(twin))
    assert len(graphs) == 3
    assert warnings() == ["StageC runs without CUDA graphs: it computes on cpu"]


class Asked(PlainSurroundings):
    def __init__(self, at: int) -> None:
        self.at, self.questions = at, 0

    def check_cancelled(self) -> None:
        self.questions += 1
        if self.questions == self.at:
            raise Cancelled


def test_a_recorded_network_is_cancelled_before_a_step() -> None:
    graphs: list[object] = []

    def backend(graph: torch.fx.GraphModule, _inputs: object) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    twin, tape = compiled(stage_c(), backend=backend), Tape()
    recorded(twin, tape)
    assert any(isinstance(module, CompiledBlock) for module in twin.modules())
    context, x, asked = context_c(twin), torch.randn(2, 16, 6, 6), Asked(at=3)
    with use(asked), pytest.raises(Cancelled), running(lambda: twin):
        for _ in range(5):
            twin(x, 0.5, context)
    assert (asked.questions, tape.recorded, tape.replayed) == (3, 1, 2)
    assert len(graphs) == 3


def test_a_network_that_is_dropped_is_gone_at_once() -> None:
    """No recording leads back to its network, which would keep it until the next collection."""
    twin, _ = _recorded_for_good()
    held = weakref.ref(twin.blocks[0].depthwise.weight)
    gc.disable()
    try:
        del twin
        assert held() is None
    finally:
        gc.enable()


def _recorded_for_good() -> tuple[StageC, object]:
    twin = copy.deepcopy(stage_c())

    def once(step: Callable[[], Tensor]) -> Callable[[], Tensor]:
        result = step()
        return lambda: result

    recorded(twin, once)
    twin(torch.randn(2, 16, 6, 6), 0.5, context_c(twin))
    return twin, once


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cuda_graphs_equal_compiled_blocks(
    dtype: torch.dtype, warnings: Callable[[], list[str]]
) -> None:
    network = stage_c().to("cuda", dtype)
    network.out.float()
    blocks, graphs = compiled(network), compiled(network, cuda_graphs=True)
    for seed in range(3):
        for batch, side in ((2, 6), (1, 9)):
            text = torch.randn(batch, 7, 24, device="cuda")
            contexts = blocks.prepare(text, TIMES), graphs.prepare(text, TIMES)
            for t in TIMES:
                x = torch.randn(batch, 16, side, side, device="cuda")
                found, expected = graphs(x, t, contexts[1]), blocks(x, t, contexts[0])
                assert torch.allclose(found, expected, rtol=1e-3, atol=1e-3), (seed, batch, t)
    assert warnings() == []
