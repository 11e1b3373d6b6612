"""The Optimize node on the demo checkpoint: what each switch does to a stage and its weights."""

import gc
import weakref
from itertools import chain
from typing import Any

import pytest
import torch
from torch import nn

from comfyui_wuerstchen.nodes import NODE_CLASS_MAPPINGS, previews, runtime
from comfyui_wuerstchen.nodes.parts import Part
from comfyui_wuerstchen.wuerstchen_core.compile import CompiledBlock
from comfyui_wuerstchen.wuerstchen_core.errors import SettingError, WireError
from comfyui_wuerstchen.wuerstchen_core.optimize import Optimization

STAGES = ("stage_c", "stage_b", "stage_a")
PRESETS = {
    "compile": "off",
    "storage": "as_loaded",
    "residency": "resident",
    "step_cache": 0.0,
    "guidance_end": 1.0,
}
SAMPLING = {"seed": 1, "sampler_name": "ddpm", "denoise": 1.0}
STEPS = 8


def call(node_id: str, **inputs: Any) -> tuple[Any, ...]:
    node = NODE_CLASS_MAPPINGS[node_id]
    return getattr(node(), node.FUNCTION)(**inputs)


def load(dtype: str = "float32") -> dict[str, Part[Any]]:
    names = NODE_CLASS_MAPPINGS["WuerstchenLoadPipeline"].RETURN_NAMES
    outputs = call("WuerstchenLoadPipeline", folder="wuerstchen-demo", dtype=dtype)
    return dict(zip(names, outputs, strict=True))


@pytest.fixture(scope="module")
def parts() -> dict[str, Part[Any]]:
    return load()


def optimize(parts: dict[str, Part[Any]], **switches: Any) -> dict[str, Part[Any]]:
    """All three stages through the node."""
    stages = {stage: parts[stage] for stage in STAGES}
    made = call("WuerstchenOptimize", **{**PRESETS, **switches}, **stages)
    return {**parts, **dict(zip(STAGES, made, strict=True))}


def encode(parts: dict[str, Part[Any]], text: str) -> Any:
    return call("WuerstchenTextEncode", text_encoder=parts["prior_text_encoder"], text=text)[0]


def stage_c(parts: dict[str, Part[Any]], size: int = 256) -> Any:
    return call(
        "WuerstchenStageCSampler",
        stage_c=parts["stage_c"],
        positive=encode(parts, "a large red star on a blue background"),
        negative=encode(parts, ""),
        latent_image=call("WuerstchenEmptyLatent", width=size, height=size, batch_size=1)[0],
        steps=STEPS,
        cfg=4.0,
        scheduler="default",
        **SAMPLING,
    )[0]


def stage_b(parts: dict[str, Part[Any]], latent: Any) -> Any:
    sampling = {**SAMPLING, "steps": 4, "cfg": 0.0, "scheduler": "uniform"}
    node = "WuerstchenStageBSampler"
    return call(node, stage_b=parts["stage_b"], stage_c_latent=latent, **sampling)[0]


def stage_a(parts: dict[str, Part[Any]], latent: Any) -> torch.Tensor:
    return call("WuerstchenStageADecode", stage_a=parts["stage_a"], samples=latent)[0]


@pytest.fixture(scope="module")
def latents(parts) -> dict[str, Any]:
    """What the plain stages give."""
    first = stage_c(parts)
    second = stage_b(parts, first)
    return {"stage_c": first, "stage_b": second, "pixels": stage_a(parts, second)}


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Root mean square, relative."""
    return ((found - expected).norm() / expected.norm()).item()


def tensors(network: nn.Module) -> set[int]:
    return {t.data_ptr() for t in chain(network.parameters(), network.buffers())}


def test_the_presets_change_nothing(parts) -> None:
    same = optimize(parts)
    for stage in STAGES:
        assert same[stage] is not parts[stage]
        assert same[stage].get() is parts[stage].get()


@pytest.mark.parametrize("storage", ["int8", "float8"])
def test_storage_takes_less_memory_and_nearly_gives_the_same(parts, latents, storage: str) -> None:
    small = optimize(parts, storage=storage)
    assert difference(stage_c(small)["samples"], latents["stage_c"]["samples"]) < 0.05
    decoded = stage_b(small, latents["stage_c"])["samples"]
    assert difference(decoded, latents["stage_b"]["samples"]) < 0.2
    for stage in ("stage_c", "stage_b"):
        assert small[stage].weights.nbytes < 0.4 * parts[stage].weights.nbytes, stage


def test_the_plain_weights_are_not_read_where_only_optimized_ones_are_used() -> None:
    plain = load()
    small = optimize(plain, storage="int8")
    small["stage_c"].get()
    assert plain["stage_c"].weights.nbytes == 0
    (single,) = call("WuerstchenLoadStageC", name="wuerstchen-demo", dtype="float32")
    optimize({**plain, "stage_c": single}, storage="int8")["stage_c"].get()
    assert single.weights.nbytes == 0


@pytest.mark.parametrize("residency", ["one_stage", "streamed"])
def test_residency_gives_the_same(parts, latents, residency: str) -> None:
    away = optimize(parts, residency=residency)
    assert away["stage_c"].weights is not parts["stage_c"].weights
    assert torch.equal(stage_c(away)["samples"], latents["stage_c"]["samples"])
    decoded = stage_b(away, latents["stage_c"])
    assert torch.equal(decoded["samples"], latents["stage_b"]["samples"])
    assert torch.equal(stage_a(away, latents["stage_b"]), latents["pixels"])


def test_a_compiled_stage_holds_the_plain_ones_weights(parts) -> None:
    fast = optimize(parts, compile="blocks")
    for stage in ("stage_c", "stage_b"):
        compiled, plain = fast[stage].get(), parts[stage].get()
        assert fast[stage].weights is parts[stage].weights  # counted once
        assert tensors(compiled) == tensors(plain)
        assert any(isinstance(module, CompiledBlock) for module in compiled.modules())
        assert not any(isinstance(module, CompiledBlock) for module in plain.modules())
        assert fast[stage].get() is compiled  # what is compiled or recorded stays
    assert fast["stage_a"].get() is parts["stage_a"].get()  # runs once a picture


def test_a_compiled_stage_whose_weights_rest_elsewhere_has_its_own(parts) -> None:
    both = optimize(parts, compile="blocks", residency="one_stage")["stage_b"]
    assert both.weights is not parts["stage_b"].weights
    assert any(isinstance(module, CompiledBlock) for module in both.get().modules())


def calls_of(part: Part[Any]) -> tuple[list[int], Any]:
    """The batch of each call of a part's network from now on, and the hook that notes it."""
    seen: list[int] = []
    hook = part.get().register_forward_hook(lambda _, inputs, out: seen.append(len(inputs[0])))
    return seen, hook


@pytest.mark.parametrize(
    ("switches", "expected"),
    [
        ({}, [2] * STEPS),
        ({"guidance_end": 0.5}, [2] * 4 + [1] * 4),
        ({"guidance_end": 0.0}, [1] * STEPS),
    ],
)
def test_guidance_ends(parts, switches: dict[str, float], expected: list[int]) -> None:
    ending = optimize(parts, **switches)
    assert ending["stage_c"].weights is parts["stage_c"].weights
    seen, hook = calls_of(ending["stage_c"])
    stage_c(ending)
    hook.remove()
    assert seen == expected


def test_steps_are_left_out(parts, latents) -> None:
    caching = optimize(parts, step_cache=0.25)
    seen, hook = calls_of(caching["stage_c"])
    near = stage_c(caching)["samples"]
    calls = len(seen)
    decoded = optimize(parts, step_cache=0.6)
    seen_b, hook_b = calls_of(decoded["stage_b"])
    stage_b(decoded, latents["stage_c"])
    hook.remove()
    hook_b.remove()
    assert 1 < calls < STEPS and 1 < len(seen_b) < 4
    assert near.shape == latents["stage_c"]["samples"].shape and near.isfinite().all()


def test_what_is_not_wired_says_so_when_it_is_used(parts, latents) -> None:
    made = call("WuerstchenOptimize", **PRESETS, stage_c=parts["stage_c"])
    found = dict(zip(STAGES, made, strict=True))
    assert found["stage_c"].get() is parts["stage_c"].get()
    with pytest.raises(WireError, match="`stage_b` of Würstchen Optimize is used.*nothing"):
        stage_b(found, latents["stage_c"])
    with pytest.raises(WireError, match="`stage_a`"):
        stage_a(found, latents["stage_b"])


@pytest.mark.parametrize(
    ("switches", "words"),
    [
        ({"compile": "blocks", "residency": "streamed"}, "turn compile off"),
        ({"compile": "cuda_graphs", "residency": "one_stage"}, "compile blocks"),
        ({"storage": "int4"}, "as_loaded, int8, float8"),
        ({"step_cache": 1.5}, "0 to 1"),
    ],
)
def test_switches_that_cannot_be(parts, switches: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        optimize(parts, **switches)


class Maps:
    """Looks at previews and learns nothing."""

    def lookup(self, key: str) -> None:
        return None

    def learn(self, key: str, latents: torch.Tensor, pixels: torch.Tensor) -> None:
        raise AssertionError("the demo brings its own")


class Watched(runtime.PlainSurroundings):
    previews = Maps()

    def __init__(self) -> None:
        self.shown: list[Any] = []

    def progress(self, value: int, total: int, preview: Any = None) -> None:
        self.shown.append(preview)


def test_previews_know_an_optimized_stage(parts) -> None:
    small, watched = optimize(parts, storage="int8"), Watched()
    with runtime.use(watched):
        made = stage_c(small)
        known = previews.known_map(small["stage_c"])
        plain = previews.known_map(parts["stage_c"])
    assert known is not None and plain is not None
    assert (known.weight == plain.weight).all()
    assert watched.shown and all(shown is not None for shown in watched.shown)
    assert made[previews.ORIGIN_KEY].key is None  # the checkpoint brings its own map


class Choosing(runtime.PlainSurroundings):
    def __init__(self, optimization: Optimization) -> None:
        self.optimization = optimization


def test_surroundings_speak_for_parts_that_no_node_speaks_for(latents) -> None:
    everywhere = Choosing(Optimization(storage="int8", residency="streamed", compile="off"))
    with runtime.use(everywhere):
        found = load()
        own = optimize(found)
    assert found["stage_b"].optimization == everywhere.optimization
    assert found["stage_b"].get().offloaded
    assert found["prior_text_encoder"].get().network.offloaded
    assert encode(found, "a star")[0][0].isfinite().all()
    assert own["stage_c"].optimization == Optimization()  # the graph's own node wins
    assert torch.equal(
        stage_c({**own, "prior_text_encoder": load()["prior_text_encoder"]})["samples"],
        latents["stage_c"]["samples"],
    )
    with runtime.use(Choosing(Optimization(compile="blocks"))):
        compiled = load()
    assert encode(compiled, "a star")[0][0].isfinite().all()  # a text tower has no such blocks
    assert any(isinstance(m, CompiledBlock) for m in compiled["stage_c"].get().modules())


def test_optimized_weights_go_with_the_last_who_holds_them() -> None:
    gc.disable()  # a reference cycle would keep two sets of weights for a while
    try:
        for switches in ({"storage": "int8"}, {"compile": "blocks"}):
            made = optimize(load(), **switches)["stage_c"]
            network = weakref.ref(made.get())
            del made
            assert network() is None, switches
    finally:
        gc.enable()


def test_reading_ahead_reads_what_will_be_used() -> None:
    small = optimize(load(), storage="int8")["stage_c"]
    reader = small.read_ahead
    assert reader is not None
    reader()
    assert small.weights.nbytes > 0 and small.read_ahead is None
