"""Compiled networks: equal to eager ones, compiled once for many blocks, and never in the way."""

import gc
import os
import subprocess
import sys
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from comfyui_wuerstchen.nodes.runtime import PlainSurroundings, running, use
from comfyui_wuerstchen.wuerstchen_core.compile import CompiledBlock, compiled
from comfyui_wuerstchen.wuerstchen_core.errors import Cancelled
from comfyui_wuerstchen.wuerstchen_core.layers import Times
from comfyui_wuerstchen.wuerstchen_core.stage_b import StageB, StageBConfig
from comfyui_wuerstchen.wuerstchen_core.stage_c import StageC, StageCConfig

from ..reference.named_weights import named_weights

pytestmark = pytest.mark.usefixtures("no_grad")

# All widths of the published Stage B, and each level's skip.
STAGE_B = StageBConfig(
    c_hidden=(32, 64, 128, 128),
    nhead=(-1, 1, 2, 2),
    blocks=(2, 2, 2, 2),
    c_cond=24,
    clip_embd=24,
)
# The same kinds of blocks, in fewer widths.
STAGE_B_SHORT = StageBConfig(
    c_hidden=(32, 64),
    nhead=(-1, 1),
    blocks=(1, 1),
    level_config=("CT", "CTA"),
    inject_effnet=(False, True),
    c_cond=24,
    clip_embd=24,
)


def stage_c(depth: int = 2) -> StageC:
    return _ready(StageC(StageCConfig(c=64, depth=depth, nhead=2, c_cond=24)))


def stage_b(config: StageBConfig = STAGE_B) -> StageB:
    return _ready(StageB(config))


def _ready(network: Any) -> Any:
    shapes = {name: value.shape for name, value in network.state_dict().items()}
    network.load_state_dict(named_weights(shapes))
    return network.eval().requires_grad_(False)


class Graphs:
    """A backend of torch.compile that counts what it compiles, and runs it eagerly."""

    def __init__(self) -> None:
        self.compiled = 0

    def __call__(self, graph: torch.fx.GraphModule, _inputs: object) -> Callable[..., Any]:
        self.compiled += 1
        return graph.forward

    def new_in(self, run: Callable[[], object]) -> int:
        before = self.compiled
        run()
        return self.compiled - before


def step_c(
    network: StageC, batch: int = 2, grid: tuple[int, int] = (6, 6), tokens: int = 7
) -> Tensor:
    draw = torch.Generator().manual_seed(batch * 1000 + grid[0] * 10 + grid[1])
    x = torch.randn(batch, 16, *grid, generator=draw)
    text = torch.randn(batch, tokens, 24, generator=draw)
    # The heads: what is divided after them amplifies rounding.
    return torch.cat(network.heads(x, 0.6, network.prepare(text, (0.6,))), dim=1)


def step_b(
    network: StageB, batch: int = 2, side: tuple[int, int] = (32, 32), text: bool = True
) -> Tensor:
    draw = torch.Generator().manual_seed(batch * 1000 + side[0] * 10 + side[1])
    x = torch.randn(batch, 4, *side, generator=draw)
    embedding = torch.randn(batch, 16, 6, 6, generator=draw)
    states = torch.randn(batch, 7, 24, generator=draw) if text else None
    context = network.prepare(embedding, side, states, (0.6,))
    return torch.cat(network.heads(x, 0.6, context), dim=1)


def error(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max()).item()


def close(found: Tensor, expected: Tensor) -> bool:
    """Eagerly some sums are taken in another order."""
    return error(found, expected) <= 1e-5


def test_the_twin_holds_the_same_weights_and_the_network_stays_eager() -> None:
    network, graphs = stage_c(), Graphs()
    twin = compiled(network, backend=graphs)
    ours, theirs = dict(network.named_parameters()), dict(twin.named_parameters())
    assert ours.keys() == theirs.keys()
    assert all(ours[name] is theirs[name] for name in ours)
    assert graphs.new_in(lambda: step_c(network)) == 0
    assert graphs.new_in(lambda: step_c(twin)) > 0
    assert graphs.new_in(lambda: step_c(network)) == 0
    assert isinstance(twin, StageC)
    assert not set(network.modules()) & set(twin.modules())


def test_compiled_steps_equal_eager_ones() -> None:
    for network, step in ((stage_c(), step_c), (stage_b(), step_b)):
        assert close(step(compiled(network, backend=Graphs())), step(network))


def test_depth_compiles_nothing() -> None:
    shallow, deep = Graphs(), Graphs()
    step_c(compiled(stage_c(depth=2), backend=shallow))
    step_c(compiled(stage_c(depth=32), backend=deep))
    assert shallow.compiled == deep.compiled == 3  # a kind each


def test_other_weights_compile_nothing() -> None:
    network, graphs = stage_c(), Graphs()
    twin = compiled(network, backend=graphs)
    step_c(twin)

    for value in network.parameters():
        value.data.mul_(1.1)  # as a LoRA does in place
    assert graphs.new_in(lambda: step_c(twin)) == 0
    assert close(step_c(twin), step_c(network))

    for module in twin.modules():  # as weights do that are brought to the device
        for name, value in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(value.detach() * 0.9, requires_grad=False))
    assert graphs.new_in(lambda: step_c(twin)) == 0

    another = compiled(stage_c(), backend=graphs)
    assert graphs.new_in(lambda: step_c(another)) == 0
    assert close(step_c(another), step_c(stage_c()))


def test_a_second_size_compiles_once_more_and_a_third_nothing(
    warnings: Callable[[], list[str]],
) -> None:
    network, graphs = stage_c(), Graphs()
    twin = compiled(network, backend=graphs)
    kinds = graphs.new_in(lambda: step_c(twin))

    def more(**shape: Any) -> int:
        return graphs.new_in(lambda: step_c(twin, **shape))

    assert more(grid=(9, 9)) <= kinds
    assert more(grid=(12, 6)) == more(grid=(6, 15)) == more(grid=(6, 6)) == 0
    assert more(batch=4) <= kinds
    assert more(batch=8) == more(batch=6, grid=(9, 12)) == 0
    assert more(batch=1) <= kinds  # torch treats one apart
    assert more(batch=1, grid=(9, 12)) == 0
    assert more(tokens=12) <= 1  # attention's
    assert more(tokens=20) == more(tokens=3, batch=3, grid=(3, 3)) == 0
    assert close(step_c(twin, 3, (9, 3), 5), step_c(network, 3, (9, 3), 5))
    assert warnings() == []


def test_stage_b_stays_below_the_limit_of_versions(warnings: Callable[[], list[str]]) -> None:
    """Torch keeps eight versions of a code; Stage B has more blocks, sizes and texts than that."""
    network, graphs = stage_b(), Graphs()
    twin = compiled(network, backend=graphs)

    def all_sizes() -> None:
        for side in ((32, 32), (48, 48), (64, 32), (32, 80)):
            for batch in (2, 1, 4):
                for text in (True, False):
                    step_b(twin, batch, side, text)

    all_sizes()
    assert graphs.new_in(all_sizes) == 0
    assert warnings() == []
    assert close(step_b(twin, 3, (64, 48)), step_b(network, 3, (64, 48)))


def test_schedules_and_times_compile_nothing() -> None:
    network, graphs = stage_c(), Graphs()
    twin = compiled(network, backend=graphs)
    x, text = torch.randn(2, 16, 6, 6), torch.randn(2, 7, 24)

    def heads(of: StageC, t: Times, *times: float) -> Tensor:
        return torch.cat(of.heads(x, t, of.prepare(text, times)), dim=1)

    heads(twin, 0.6, 1.0, 0.6)
    assert graphs.new_in(lambda: heads(twin, 1.0, 1.0, 0.6)) == 0
    assert graphs.new_in(lambda: heads(twin, 0.2, 0.9, 0.6, 0.2)) == 0
    assert graphs.new_in(lambda: heads(twin, 0.3)) == 0

    differ = torch.tensor([0.9, 0.2])
    assert graphs.new_in(lambda: heads(twin, differ)) == 1  # the timestep block's
    assert close(heads(twin, differ), heads(network, differ))


def test_what_cannot_be_compiled_runs_eagerly_after_one_warning(
    warnings: Callable[[], list[str]],
) -> None:
    tried = 0

    def broken(_graph: torch.fx.GraphModule, _inputs: object) -> Callable[..., Any]:
        nonlocal tried
        tried += 1
        raise RuntimeError("no compiler\nfound here")

    network = stage_c()
    twin = compiled(network, backend=broken)
    assert close(step_c(twin), step_c(network))
    assert close(step_c(twin, batch=3), step_c(network, batch=3))
    assert tried == 1
    (warning,) = warnings()
    assert warning.startswith("StageC runs uncompiled: ") and "no compiler" in warning


def test_a_block_that_is_itself_at_fault_raises_and_stays_compiled(
    warnings: Callable[[], list[str]],
) -> None:
    graphs = Graphs()
    twin = compiled(stage_c(), backend=graphs)
    step_c(twin)
    with pytest.raises(RuntimeError):
        twin.blocks[0](torch.zeros(1, 6, 6, 63))
    assert warnings() == []
    assert graphs.new_in(lambda: step_c(twin)) == 0
    with pytest.raises(torch.OutOfMemoryError):

        def full(_graph: torch.fx.GraphModule, _inputs: object) -> Callable[..., Any]:
            def run(*_: object) -> None:
                raise torch.OutOfMemoryError("CUDA out of memory.")

            return run

        step_c(compiled(stage_c(), backend=full))
    assert warnings() == []


class Cancelling(PlainSurroundings):
    """Somebody cancels at a question; None: never."""

    def __init__(self, at: int | None = None) -> None:
        self.at, self.questions = at, 0

    def check_cancelled(self) -> None:
        self.questions += 1
        if self.questions == self.at:
            raise Cancelled


def test_cancelling_a_compiled_network_stops_before_the_next_block() -> None:
    graphs = Graphs()
    twin = compiled(stage_c(), backend=graphs)
    with use(Cancelling()), running(lambda: twin):
        assert graphs.new_in(lambda: step_c(twin)) == 3
    blocks = [module for module in twin.modules() if isinstance(module, CompiledBlock)]
    calls: list[nn.Module] = []
    watch = [b.register_forward_hook(lambda module, *_: calls.append(module)) for b in blocks]
    asked = Cancelling(at=5)
    # Two linears of `prepare`, the projection and two blocks: before the second it is cancelled.
    with use(asked), pytest.raises(Cancelled), running(lambda: twin):
        context = twin.prepare(torch.randn(2, 7, 24), (0.6,))
        asked.questions = 2
        twin(torch.randn(2, 16, 6, 6), 0.6, context)
    assert calls == blocks[:1]
    for hook in watch:
        hook.remove()


def test_being_cancellable_compiles_nothing() -> None:
    network, graphs = stage_b(), Graphs()
    twin = compiled(network, backend=graphs)
    expected = step_b(network)
    step_b(twin)

    def while_running() -> None:
        asked = Cancelling()
        with use(asked), running(lambda: twin):
            assert close(step_b(twin), expected)
        assert asked.questions >= sum(isinstance(m, CompiledBlock) for m in twin.modules())

    assert graphs.new_in(while_running) == 0
    assert graphs.new_in(lambda: step_b(twin)) == 0


def test_compiled_code_holds_no_weights() -> None:
    network = stage_c()
    twin = compiled(network, backend=Graphs())
    step_c(twin)
    held = weakref.ref(network.blocks[0].depthwise.weight)
    del network, twin
    gc.collect()
    assert held() is None


# Measured on the CPU: 4e-7 (Stage C) and 5e-7 (B) in float32, 6e-3 and 1.2e-2 in bfloat16.
@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 2e-2)])
def test_the_real_compiler_rounds_little(
    dtype: str, tolerance: float, warnings: Callable[[], list[str]]
) -> None:
    for network, step in ((stage_c(), step_c), (stage_b(STAGE_B_SHORT), step_b)):
        network.to(getattr(torch, dtype))
        for module in network.float32_modules():
            module.float()
        assert error(step(compiled(network)), step(network)) <= tolerance
    assert warnings() == []


_COLD_OR_WARM = """
import torch
from torch._dynamo.utils import counters
from comfyui_wuerstchen.wuerstchen_core.compile import compiled
from comfyui_wuerstchen.wuerstchen_core.stage_c import StageC, StageCConfig

network = StageC(StageCConfig(c=64, depth=2, nhead=2, c_cond=24)).eval().requires_grad_(False)
twin = compiled(network)
with torch.no_grad():
    twin(torch.randn(2, 16, 6, 6), 0.6, twin.prepare(torch.randn(2, 7, 24)))
found = counters["inductor"]["fxgraph_cache_hit"], counters["aot_autograd"]["autograd_cache_hit"]
print(max(found), counters["inductor"]["fxgraph_cache_miss"])
"""


@pytest.mark.slow
def test_a_second_process_finds_the_compiled_code(tmp_path: Any) -> None:
    def hits_and_misses() -> list[int]:
        done = subprocess.run(
            [sys.executable, "-c", _COLD_OR_WARM],
            env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)},
            check=True,
            capture_output=True,
            text=True,
        )
        return [int(number) for number in done.stdout.split()]

    assert hits_and_misses() == [0, 3]
    assert hits_and_misses() == [3, 0]
