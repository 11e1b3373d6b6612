"""Weights that are brought to the device only while they work: the same results, and no more
memory than promised. The CPU stands in for the device: its copies are as real."""

import gc
import threading
from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from comfyui_wuerstchen.wuerstchen_core.compile import compiled
from comfyui_wuerstchen.wuerstchen_core.errors import Cancelled
from comfyui_wuerstchen.wuerstchen_core.generate import (
    SamplerSettings,
    decode_pixels,
    encode_embedding,
    encode_pixels,
    sample_stage_b,
    sample_stage_c,
)
from comfyui_wuerstchen.wuerstchen_core.noise import SampleNoise
from comfyui_wuerstchen.wuerstchen_core.offload import LAYERS_AHEAD, SMALL_LAYER, at_work, offload
from comfyui_wuerstchen.wuerstchen_core.optimize import Optimization, placed
from comfyui_wuerstchen.wuerstchen_core.residency import device_of, weight_bytes
from comfyui_wuerstchen.wuerstchen_core.stage_a import StageA
from comfyui_wuerstchen.wuerstchen_core.stage_b import StageB
from comfyui_wuerstchen.wuerstchen_core.stage_c import StageC, StageCConfig
from comfyui_wuerstchen.wuerstchen_core.text_encoder import TextEncoder

from ..checkpoints.tiny import DECODER_WIDTH, PRIOR_WIDTH, networks, text_encoder, with_weights

CPU = torch.device("cpu")
MODES = ("one_stage", "streamed")
STEPS = SamplerSettings(steps=3, cfg=3.0)
PICTURES = 2


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def run_stage_c(network: nn.Module, callback=None) -> Tensor:
    texts = noise(PICTURES, 77, PRIOR_WIDTH), noise(1, 77, PRIOR_WIDTH)
    latent = torch.zeros(PICTURES, 16, 6, 3)
    return sample_stage_c(network, *texts, latent, SampleNoise([0, 1]), STEPS, callback)


def run_stage_b(network: nn.Module) -> Tensor:
    texts = noise(PICTURES, 77, DECODER_WIDTH), noise(1, 77, DECODER_WIDTH)
    embedding = noise(PICTURES, 16, 6, 3)
    return sample_stage_b(network, embedding, *texts, None, SampleNoise([0, 1]), STEPS)


# What each kind of network does, by the name that `tiny.networks` gives it.
JOBS: dict[str, Callable[[nn.Module], Tensor]] = {
    "stage_c": run_stage_c,
    "stage_b": run_stage_b,
    "stage_a": lambda network: decode_pixels(
        network, encode_pixels(network, noise(1, 3, 32, 64).sigmoid())
    ),
    "image_encoder": lambda network: encode_embedding(
        network, noise(1, 3, 64, 96).sigmoid(), (2, 3)
    ),
}


def tiny(part: str, residency: str, storage: str = "as_loaded") -> nn.Module:
    network = networks()[part].requires_grad_(False)
    return placed(network, CPU, torch.float32, Optimization(residency=residency, storage=storage))


def wide_stage_c() -> StageC:
    """Weights that weigh more than what is computed with them: 14 MB, the largest layer 1 MB."""
    network = with_weights(StageC(StageCConfig(c=256, c_cond=PRIOR_WIDTH, depth=4, nhead=4)))
    return network.requires_grad_(False)  # type: ignore[return-value]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("part", JOBS)
def test_bit_equal_to_resident(part: str, mode: str) -> None:
    resident, moving = tiny(part, "resident"), tiny(part, mode)
    expected = JOBS[part](resident)
    assert expected.isfinite().all()
    for _ in range(2):  # the second picture knows the order of the layers
        assert torch.equal(JOBS[part](moving), expected)
    assert weight_bytes(moving) == weight_bytes(resident)
    assert moving.state_dict().keys() == resident.state_dict().keys()


@pytest.mark.parametrize("mode", MODES)
def test_text_encoders_too(mode: str, tmp_path) -> None:
    encoder = text_encoder(PRIOR_WIDTH, tmp_path)
    texts = ["a red star", "", "a blue ring"]
    expected = encoder.encode(texts)
    moving = placed(encoder.network, CPU, torch.float32, Optimization(residency=mode))
    assert torch.equal(TextEncoder(encoder.tokenizer, moving).encode(texts), expected)
    assert_nothing_moved(moving)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("storage", ["int8", "float8"])
def test_quantised_weights_move_as_well(storage: str, mode: str) -> None:
    expected = run_stage_c(tiny("stage_c", "resident", storage))
    moving = tiny("stage_c", mode, storage)
    assert torch.equal(run_stage_c(moving), expected)
    assert weight_bytes(moving) == weight_bytes(tiny("stage_c", "resident", storage))


def test_memory_is_bounded() -> None:
    """By the allocator's own record, not by the code's."""
    weights = weight_bytes(wide_stage_c())
    own = {m: sum(p.nbytes for p in m.parameters(recurse=False)) for m in wide_stage_c().modules()}
    largest = max(own.values())
    small = sum(size for size in own.values() if size < SMALL_LAYER)
    peaks: dict[str, int] = {}
    for mode in ("resident", *MODES):
        network = placed(wide_stage_c(), CPU, torch.float32, Optimization(residency=mode))
        run_stage_c(network)
        peaks[mode], kept = memory_of(lambda network=network: run_stage_c(network))
        assert kept < 100_000, mode  # the result, and no weights
    computing = peaks["resident"]
    assert computing < weights / 2  # otherwise the rest says nothing
    assert weights <= peaks["one_stage"] - computing <= weights * 1.02
    most = small + (1 + LAYERS_AHEAD) * largest
    assert most < weights / 2
    # More than one layer at a time, so that copying and computing overlap.
    assert small + 2 * largest <= peaks["streamed"] - computing <= most * 1.02


def memory_of(work: Callable[[], object]) -> tuple[int, int]:
    """(peak, what is left) in bytes allocated by `work`, whose result lives on until measured."""
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        result = work()
    events = record.profiler.kineto_results.events()  # type: ignore[union-attr]
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    held = peak = 0
    for _, change in changes:
        held += change
        peak = max(peak, held)
    del result
    return peak, held


@pytest.mark.parametrize("mode", MODES)
def test_nothing_stays_after_a_cancel(mode: str) -> None:
    network = placed(wide_stage_c(), CPU, torch.float32, Optimization(residency=mode))
    expected = run_stage_c(network)

    def stop(info) -> None:
        if info.step == 1:
            raise Cancelled

    def cancelled() -> pytest.ExceptionInfo[Cancelled]:
        with pytest.raises(Cancelled) as error:
            run_stage_c(network, stop)
        return error  # its traceback holds what the steps computed, but no weights

    _, kept = memory_of(cancelled)
    assert kept < weight_bytes(network) / 5
    assert_nothing_moved(network)
    assert torch.equal(run_stage_c(network), expected)


def test_nothing_stays_after_an_error_inside_a_layer() -> None:
    network = placed(wide_stage_c(), CPU, torch.float32, Optimization(residency="streamed"))

    def fail(*_: object) -> None:
        raise MemoryError

    hook = network.blocks[5].attention.to_out[0].register_forward_pre_hook(fail)  # type: ignore
    with pytest.raises(MemoryError):
        run_stage_c(network)
    hook.remove()
    assert_nothing_moved(network)
    assert torch.equal(run_stage_c(network), run_stage_c(wide_stage_c()))


def assert_nothing_moved(network: nn.Module) -> None:
    """No hooks, and the very tensors that are there whenever the network rests."""
    resting = [tensor.data_ptr() for tensor in network.state_dict().values()]
    with at_work(network):
        pass
    assert resting == [tensor.data_ptr() for tensor in network.state_dict().values()]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


@pytest.mark.parametrize("mode", MODES)
def test_every_weight_comes_to_the_device(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another device than where weights rest: any that stayed behind is an error of torch's."""
    meta = torch.device("meta")
    parts = networks()
    for network in parts.values():
        offload(network.requires_grad_(False), meta, streamed=mode == "streamed")
        assert device_of(network) == meta

    def empty(*shape: int) -> Tensor:
        return torch.empty(shape, device=meta)

    # torch has no autocast to turn off for this device, as the output heads do.
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    c, b, a, encoder = (parts[n] for n in ("stage_c", "stage_b", "stage_a", "image_encoder"))
    assert isinstance(c, StageC)
    assert isinstance(b, StageB)
    assert isinstance(a, StageA)
    with torch.no_grad(), at_work(c), at_work(b), at_work(a), at_work(encoder):
        for _ in range(2):
            for_c = c.prepare(empty(1, 77, PRIOR_WIDTH), (1.0, 0.5))
            assert c(empty(1, 16, 6, 3), 1.0, for_c).device == meta
            for_b = b.prepare(empty(1, 16, 6, 3), (64, 32), empty(1, 77, DECODER_WIDTH), (1.0,))
            assert b(empty(1, 4, 64, 32), 1.0, for_b).device == meta
            assert a.decode(a.encode(empty(1, 3, 32, 64))).device == meta
            assert encoder(empty(1, 3, 64, 96)).device == meta
    for network in parts.values():
        assert all(tensor.device == CPU for tensor in network.state_dict().values())


def test_threads_take_turns() -> None:
    network = placed(wide_stage_c(), CPU, torch.float32, Optimization(residency="streamed"))
    expected = run_stage_c(network)
    results: list[Tensor] = []
    threads = [
        threading.Thread(target=lambda: results.append(run_stage_c(network))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 2
    assert all(torch.equal(result, expected) for result in results)


def test_compiled_blocks_take_the_weights_of_each_stay() -> None:
    graphs: list[object] = []

    def backend(graph, _inputs):
        graphs.append(graph)
        return graph.forward

    network = compiled(wide_stage_c(), backend=backend)
    expected = run_stage_c(network)
    known = len(graphs)
    offload(network, CPU, streamed=False)
    for _ in range(2):
        assert torch.equal(run_stage_c(network), expected)
    assert 0 < known == len(graphs)
