"""Load Würstchen LoRA on the demo checkpoint: what is changed, what is shared, what is said."""

import logging
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from comfyui_wuerstchen.host.cache import CacheLimits, NodeOutput, OutputCache
from comfyui_wuerstchen.host.folders import Folders, HostSurroundings
from comfyui_wuerstchen.nodes import NODE_CLASS_MAPPINGS, runtime
from comfyui_wuerstchen.nodes.choices import lora_choices
from comfyui_wuerstchen.nodes.parts import Part
from comfyui_wuerstchen.wuerstchen_core.checkpoints import load_stage_b
from comfyui_wuerstchen.wuerstchen_core.checkpoints.configs import STAGE_B
from comfyui_wuerstchen.wuerstchen_core.checkpoints.load import open_weights
from comfyui_wuerstchen.wuerstchen_core.compile import CompiledBlock
from comfyui_wuerstchen.wuerstchen_core.errors import LoraError, WireError
from comfyui_wuerstchen.wuerstchen_core.optimize import Optimization

from ..nodes.demo import call, decoder, empty, encode, prior
from ..paths import ROOT
from .demo_files import random_lora

DEMO = ROOT / "models" / "wuerstchen-demo"
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
BLOCKS = 6

Parts = dict[str, Part[Any]]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with LoRAs for the demo's parts."""
    folder = tmp_path_factory.mktemp("models")
    prior_state = load_file(DEMO / "wuerstchen-prior/prior/diffusion_pytorch_model.safetensors")
    decoder_state = load_file(DEMO / "wuerstchen/decoder/diffusion_pytorch_model.safetensors")
    text_state = load_file(DEMO / "wuerstchen-prior/text_encoder/model.safetensors")
    own, text = "lora_unet_", "lora_te_"
    random_lora(folder / "attention.safetensors", prior_state, ATTENTION, 0.5, own)
    random_lora(folder / "linears.safetensors", prior_state, ("channelwise.4",), 6.0, own)
    ends = (*ATTENTION, "channelwise.0", "effnet_mappers.1", "depthwise")
    random_lora(folder / "decoder.safetensors", decoder_state, ends, 0.5, own)
    random_lora(folder / "text.safetensors", text_state, ("q_proj", "fc1"), 0.5, text)
    both = {name: load_file(folder / f"{name}.safetensors") for name in ("attention", "text")}
    save_file({**both["attention"], **both["text"]}, folder / "both.safetensors")
    flux = {
        f"lora_unet_double_blocks_0_img_attn_proj.lora_{n}.weight": torch.ones(2, 2)
        for n in ("down", "up")
    }
    save_file(flux, folder / "flux.safetensors")
    return folder


@pytest.fixture(autouse=True)
def surroundings(models: Path, tmp_path: Path):
    folders = Folders(tmp_path, tmp_path, tmp_path, models=(models,))
    with runtime.use(HostSurroundings(folders)):
        yield


def load(dtype: str = "float32") -> Parts:
    names = NODE_CLASS_MAPPINGS["WuerstchenLoadPipeline"].RETURN_NAMES
    outputs = call("WuerstchenLoadPipeline", folder="wuerstchen-demo", dtype=dtype)
    return dict(zip(names, outputs, strict=True))


@pytest.fixture(scope="module")
def parts() -> Parts:
    return load()


def with_lora(
    parts: Parts, name: str, strength: float = 1.0, wired: tuple[str, ...] = (), **more: Any
) -> Parts:
    node = NODE_CLASS_MAPPINGS["WuerstchenLoadLoRA"]
    inputs = {each: parts[each] for each in ("stage_c", *wired)}
    answer = node().load(lora_name=f"{name}.safetensors", strength=strength, **inputs, **more)
    made = dict(zip(node.RETURN_NAMES, answer["result"], strict=True))
    unwired = {name: made.pop(name) for name in node.RETURN_NAMES if name not in inputs}
    return {**parts, **made, "unwired": unwired, "said": answer["ui"]["text"]}


def tensors(network: nn.Module) -> dict[str, torch.Tensor]:
    return dict(chain(network.named_parameters(), network.named_buffers()))


def test_only_what_changes_is_new_and_the_loaded_weights_stay(parts, models: Path) -> None:
    before = {name: value.clone() for name, value in tensors(parts["stage_c"].get()).items()}
    made = with_lora(parts, "attention")
    plain, changed = (tensors(one["stage_c"].get()) for one in (parts, made))
    touched = {name for name in changed if changed[name] is not plain[name]}
    assert len(touched) == 4 * BLOCKS and all("attention" in name for name in touched)
    lora = load_file(models / "attention.safetensors")
    for name in touched:
        key = "lora_unet_" + name.removesuffix(".weight").replace(".", "_")
        delta = lora[f"{key}.lora_up.weight"] @ lora[f"{key}.lora_down.weight"]
        torch.testing.assert_close(changed[name], plain[name] + delta, rtol=1e-5, atol=1e-6)
    assert all(torch.equal(plain[name], value) for name, value in before.items())
    assert made["said"] == ["applied 24 of 24 to Stage C"]


def test_memory_is_counted_once(parts) -> None:
    made = with_lora(parts, "attention")["stage_c"]
    plain, network = parts["stage_c"].get(), made.get()
    before = {id(value) for value in tensors(plain).values()}
    own = [value for value in tensors(network).values() if id(value) not in before]
    assert made.weights.nbytes == sum(value.nbytes for value in own) > 0
    assert made.weights.beside is parts["stage_c"].weights
    fast = made.optimized(Optimization(compile="blocks", step_cache=0.5))
    assert fast.weights is made.weights
    cache = OutputCache(CacheLimits())
    cache.put("lora", NodeOutput([[made]], None))
    assert cache._weights.measure() == made.weights.nbytes + parts["stage_c"].weights.nbytes


def test_both_branches_run_and_the_plain_one_is_as_it_was(parts) -> None:
    plain = prior(parts, empty())["samples"]
    changed = prior(with_lora(parts, "attention"), empty())["samples"]
    assert not torch.allclose(changed, plain, atol=0.1)
    assert torch.equal(prior(parts, empty())["samples"], plain)


def test_chains_add_up_in_any_order_and_take_themselves_back(parts) -> None:
    plain = prior(parts, empty())["samples"]
    forth = with_lora(with_lora(parts, "attention", 0.5), "linears", 0.7)
    back = with_lora(with_lora(parts, "linears", 0.7), "attention", 0.5)
    twice = with_lora(with_lora(with_lora(parts, "linears", 0.7), "attention"), "attention", -0.5)
    found = [prior(each, empty())["samples"] for each in (forth, back, twice)]
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(found[2], found[0], rtol=1e-3, atol=1e-2)
    assert not torch.allclose(found[0], plain, atol=0.1)
    gone = with_lora(with_lora(parts, "attention", 0.5), "attention", -0.5)
    torch.testing.assert_close(prior(gone, empty())["samples"], plain, rtol=1e-3, atol=1e-2)


def test_strength_0_is_the_same_part(parts) -> None:
    assert with_lora(parts, "attention", 0.0)["stage_c"] is parts["stage_c"]


def test_weights_are_rounded_once(parts) -> None:
    """A bfloat16 part's changed weights are those of the file, changed and then rounded."""
    small = with_lora(load("bfloat16"), "linears")["stage_c"].get()
    exact = with_lora(parts, "linears")["stage_c"].get()
    assert small.out[1].weight.dtype == torch.float32
    for name, value in tensors(exact).items():
        found = tensors(small)[name]
        assert torch.equal(found, value.to(found.dtype)), name


@pytest.mark.parametrize(
    "switches",
    [
        {"storage": "int8"},
        {"storage": "float8"},
        {"residency": "one_stage"},
        {"residency": "streamed"},
        {"residency": "streamed", "storage": "int8"},
        {"compile": "blocks"},
    ],
    ids=str,
)
def test_a_lora_before_optimize(parts, switches: dict[str, str]) -> None:
    wanted = Optimization(**switches)
    made = with_lora(parts, "linears")["stage_c"].optimized(wanted)
    network = made.get()
    if wanted.compile != "off":
        assert any(isinstance(module, CompiledBlock) for module in network.modules())
        twins = tensors(with_lora(parts, "linears")["stage_c"].get())
        assert all(torch.equal(value, twins[name]) for name, value in tensors(network).items())
        return
    found = prior({**parts, "stage_c": made}, empty())["samples"]
    expected = prior(with_lora(parts, "linears"), empty())["samples"]
    plain = prior(parts, empty())["samples"]
    error = (found - expected).norm() / expected.norm()
    assert error < (0.1 if wanted.storage != "as_loaded" else 1e-5), error
    assert (found - plain).norm() / plain.norm() > 0.2


def test_patched_then_quantised(parts) -> None:
    """int8 weights are those of the patched ones, as if they had been read so from a file."""
    made = with_lora(parts, "linears")["stage_c"].optimized(Optimization(storage="int8")).get()
    plain = parts["stage_c"].optimized(Optimization(storage="int8")).get()
    exact = with_lora(parts, "linears")["stage_c"].get()
    layer = "blocks.3.channelwise.4"
    stored, wanted = (one.get_submodule(layer).weight for one in (made, exact))
    assert type(stored) is not type(wanted)
    assert (stored.dequantize() - wanted).abs().max() < wanted.abs().max() / 100
    first = "blocks.3.channelwise.0"
    assert made.get_submodule(first).weight is plain.get_submodule(first).weight or torch.equal(
        made.get_submodule(first).weight.dequantize(),
        plain.get_submodule(first).weight.dequantize(),
    )


def test_optimized_then_a_lora_is_the_same(parts) -> None:
    wanted = Optimization(storage="int8")
    one = with_lora(parts, "linears")["stage_c"].optimized(wanted)
    other = with_lora({**parts, "stage_c": parts["stage_c"].optimized(wanted)}, "linears")
    samples = [
        prior({**parts, "stage_c": part}, empty())["samples"] for part in (one, other["stage_c"])
    ]
    assert torch.equal(*samples)


@pytest.mark.parametrize("residency", ["resident", "streamed"])
def test_stage_b_is_changed_before_it_is_folded(parts, models: Path, residency: str) -> None:
    made = with_lora(
        {**parts, "stage_c": with_lora(parts, "linears")["stage_c"]}, "decoder", wired=("stage_b",)
    )
    stage = made["stage_b"].optimized(Optimization(residency=residency))
    lora = load_file(models / "decoder.safetensors")
    assert made["said"] == [f"applied {len(lora) // 2} of {len(lora) // 2} to Stage B"]
    weights = open_weights(STAGE_B, DEMO / "wuerstchen/decoder")
    state = {name: value.float() for name, value in weights.state.items()}
    for name in state:
        key = "lora_unet_" + name.removesuffix(".weight").replace(".", "_")
        if f"{key}.lora_up.weight" in lora:
            delta = lora[f"{key}.lora_up.weight"] @ lora[f"{key}.lora_down.weight"]
            state[name] = state[name] + delta.reshape(state[name].shape)
    expected = load_stage_b(DEMO / "wuerstchen/decoder", "float32", fold=False)
    expected.load_state_dict(state)
    latent = {"samples": torch.randn(1, 16, 6, 6, generator=torch.Generator().manual_seed(0))}
    whole = Part(lambda _: expected)
    found = decoder({**parts, "stage_b": stage}, latent)["samples"]
    wanted = decoder({**parts, "stage_b": whole}, latent)["samples"]
    plain = decoder(parts, latent)["samples"]
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(found, plain, atol=0.05)


def test_stage_b_shares_what_no_lora_reaches(parts) -> None:
    made = with_lora(parts, "decoder", wired=("stage_b",))
    plain, changed = (tensors(one["stage_b"].get()) for one in (parts, made))
    shared = [name for name in plain if changed[name] is plain[name]]
    assert any("channelwise.4" in name for name in shared) and len(shared) > len(plain) / 3


def test_the_text_encoder_has_a_strength_of_its_own(parts) -> None:
    made = with_lora(parts, "both", wired=("prior_text_encoder",))
    layers = parts["prior_text_encoder"].get().network.config.num_hidden_layers
    assert made["said"] == [
        "applied 24 of 24 to Stage C",
        f"applied {2 * layers} of {2 * layers} to the text encoder",
    ]
    plain, changed = (encode(one, "a red star")[0][0] for one in (parts, made))
    assert not torch.allclose(plain, changed, atol=1e-2)
    without = with_lora(parts, "both", wired=("prior_text_encoder",), strength_text=0.0)
    assert without["prior_text_encoder"] is parts["prior_text_encoder"]
    assert torch.equal(encode(parts, "a red star")[0][0], plain)


@pytest.mark.parametrize(
    "switches",
    [{"storage": "int8"}, {"residency": "streamed"}, {"residency": "one_stage"}],
    ids=str,
)
def test_a_text_encoder_stored_or_kept_otherwise(parts, switches: dict[str, str]) -> None:
    made = with_lora(parts, "both", wired=("prior_text_encoder",))["prior_text_encoder"]
    expected = encode({"prior_text_encoder": made}, "a red star")[0][0]
    other = {"prior_text_encoder": made.optimized(Optimization(**switches))}
    found = encode(other, "a red star")[0][0]
    error = (found - expected).norm() / expected.norm()
    assert error < (0.1 if "storage" in switches else 1e-5)


def test_a_text_half_without_a_text_encoder_is_told(parts, caplog) -> None:
    with caplog.at_level(logging.INFO):
        made = with_lora(parts, "both")
    assert made["said"][0] == "applied 24 of 24 to Stage C"
    assert "text encoder, which is not wired" in made["said"][1]
    assert "both.safetensors: applied 24 of 24 to Stage C" in caplog.messages
    with pytest.raises(WireError, match="`prior_text_encoder` of Load Würstchen LoRA"):
        made["unwired"]["prior_text_encoder"].get()
    with pytest.raises(LoraError, match="changes only a text encoder"):
        with_lora(parts, "text")


def test_choices_leave_out_what_is_for_other_models(models: Path) -> None:
    names = lora_choices()
    assert {"attention.safetensors", "decoder.safetensors", "text.safetensors"} <= set(names)
    assert "flux.safetensors" not in names
    assert not any("diffusion_pytorch_model" in name for name in names)


def test_nothing_that_fits_is_an_error(parts) -> None:
    with pytest.raises(LoraError, match=r"flux\.safetensors is a LoRA for Flux .* fits Stage C\."):
        with_lora(parts, "flux")
    with pytest.raises(LoraError, match="nothing in it fits Stage C"):
        with_lora(parts, "decoder")


def test_another_file_is_another_stamp(models: Path) -> None:
    node = NODE_CLASS_MAPPINGS["WuerstchenLoadLoRA"]
    first = node.IS_CHANGED("linears.safetensors", strength=1.0)
    path = models / "linears.safetensors"
    save_file({**load_file(path), "x.alpha": torch.ones(1)}, path)
    assert node.IS_CHANGED("linears.safetensors", strength=1.0) != first
    assert node.IS_CHANGED("nothing.safetensors") == "missing"
