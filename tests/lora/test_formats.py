"""Every kind of LoRA file, by its exact names, against formulas written out in `files.py`."""

import json
from pathlib import Path

import pytest
import torch

from comfyui_wuerstchen.wuerstchen_core.errors import LoraError, WuerstchenError
from comfyui_wuerstchen.wuerstchen_core.lora import (
    Changed,
    match,
    nothing_fits,
    read_lora,
    rest_of,
    together,
    trained_for,
)
from comfyui_wuerstchen.wuerstchen_core.stage_c import StageC, StageCConfig

from ..checkpoints.broken import code_in_pickle, empty, missing, text, trace_of
from ..checkpoints.tiny import networks
from .files import FORMATS, Written, kohya, kohya_attention, noise, peft, processors, write


@pytest.fixture(scope="module")
def state():
    return networks()["stage_c"].state_dict()


def changed(path: Path, state, strength: float = 1.0):
    lora = read_lora(path)
    return lora, Changed(state, match(lora, state).changes(strength))


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
@pytest.mark.parametrize("make", FORMATS, ids=lambda make: make.__name__)
def test_each_format_makes_the_weights_that_its_formula_gives(
    make, suffix: str, state, tmp_path: Path
) -> None:
    written = make(state)
    if suffix == "pt" and written.about:
        pytest.skip("only safetensors files have metadata")
    lora, weights = changed(write(tmp_path / f"lora.{suffix}", written), state)
    assert not lora.unknown and rest_of(lora, [match(lora, state)]) == []
    assert set(match(lora, state).adapters) == written.expected.keys()
    for name, value in state.items():
        if name in written.expected:
            expected = written.expected[name].float()
            torch.testing.assert_close(weights[name], expected, rtol=1e-5, atol=1e-5)
            assert not torch.allclose(expected, value, atol=1e-3), name
        else:
            assert weights[name] is value


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("prior.", ""),
        ("prior.", "base_model.model."),
        ("prior.", "unet."),
        ("prior.", "diffusion_model."),
        (".weight", ".default.weight"),
        (".lora_A.", ".lora_down."),
    ],
)
def test_other_spellings_of_the_same(before: str, after: str, state, tmp_path: Path) -> None:
    written = peft(state)
    tensors = {name.replace(before, after): value for name, value in written.tensors.items()}
    if "down" in after:
        tensors = {name.replace("lora_B", "lora_up"): value for name, value in tensors.items()}
    _, weights = changed(write(tmp_path / "a.safetensors", Written(tensors, {})), state)
    for name, value in written.expected.items():
        torch.testing.assert_close(weights[name], value.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("make", [peft, processors, kohya_attention], ids=lambda m: m.__name__)
def test_the_published_priors_128_projections(make, tmp_path: Path) -> None:
    """Names and shapes of the published size; its weights have no memory here."""
    with torch.device("meta"):
        published = StageC(StageCConfig(c=1536, c_cond=1280, depth=32, nhead=24)).state_dict()
    tensors = {}
    for block in range(2, 96, 3):
        own = {n: v for n, v in published.items() if n.startswith(f"blocks.{block}.attention.")}
        as_second = {
            name.replace(f"blocks.{block}.", "blocks.2."): torch.zeros(1).expand(value.shape)
            for name, value in own.items()
        }
        for name, value in make(as_second).tensors.items():
            for separator in "._":
                old, new = (f"blocks{separator}{n}{separator}" for n in (2, block))
                name = name.replace(old, new)
            tensors[name] = value
    lora = read_lora(write(tmp_path / "a.safetensors", Written(tensors, {})))
    found = match(lora, published)
    assert len(lora.modules) == len(found.modules) == len(found.adapters) == 128
    assert all(name.split(".")[2] == "attention" for name in found.adapters)


@pytest.mark.parametrize("prefix", ["lora_prior_unet_", "lycoris_", "lora_prior_"])
def test_other_prefixes_of_flat_names(prefix: str, state, tmp_path: Path) -> None:
    written = kohya(state)
    tensors = {name.replace("lora_unet_", prefix): v for name, v in written.tensors.items()}
    lora = read_lora(write(tmp_path / "a.safetensors", Written(tensors, {})))
    assert set(match(lora, state).adapters) == written.expected.keys()


def test_strengths_scale_and_orders_do_not_matter(state, tmp_path: Path) -> None:
    loras = [
        match(read_lora(write(tmp_path / f"{i}.safetensors", make(state))), state)
        for i, make in enumerate(FORMATS)
    ]
    name = "blocks.2.attention.to_q.weight"
    half, whole = (Changed(state, loras[0].changes(s))[name] - state[name] for s in (0.5, 1.0))
    torch.testing.assert_close(half * 2, whole)
    forth, back = {}, {}
    for index, one in enumerate(loras):
        forth = together(forth, one.changes(index - 2))
    for index, one in reversed(list(enumerate(loras))):
        back = together(back, one.changes(index - 2))
    assert len(forth[name]) > 5
    for changed_name in forth:
        found, again = Changed(state, forth)[changed_name], Changed(state, back)[changed_name]
        torch.testing.assert_close(found, again, rtol=1e-5, atol=1e-5)


def test_text_halves_go_to_the_text_encoder(state, tmp_path: Path) -> None:
    tower = {f"encoder.layers.{i}.self_attn.q_proj.weight": noise(32, 32) for i in range(2)}
    tower["embeddings.token_embedding.weight"] = noise(9, 32)
    tensors = dict(kohya(state).tensors)
    for prefix, layer in (("lora_te_text_model_", 0), ("text_encoder.text_model.", 1)):
        module = f"encoder.layers.{layer}.self_attn.q_proj"
        name = prefix + (module.replace(".", "_") if prefix.endswith("_") else module)
        tensors[f"{name}.lora_down.weight"] = noise(2, 32)
        tensors[f"{name}.lora_up.weight"] = noise(32, 2)
    tensors["bundle_emb.<token>.clip_g"] = noise(2, 32)
    lora = read_lora(write(tmp_path / "a.safetensors", Written(tensors, {})))
    stage, text_encoder = match(lora, state), match(lora, tower, text_encoder=True)
    assert set(text_encoder.adapters) == tower.keys() - {"embeddings.token_embedding.weight"}
    assert not set(stage.adapters) & tower.keys() and stage.adapters
    assert rest_of(lora, [stage, text_encoder]) == ["bundle_emb.<token>.clip_g"]
    assert len(rest_of(lora, [stage])) == 3


OTHERS = {
    "Stable Diffusion XL": "lora_unet_input_blocks_4_1_transformer_blocks_5_attn1_to_q",
    "Stable Diffusion": "lora_unet_down_blocks_1_attentions_0_proj_in",
    "Flux": "lora_unet_double_blocks_0_img_attn_proj",
    "Stable Diffusion 3": "transformer.transformer_blocks.3.attn.add_q_proj",
    "Stable Cascade": "lora_prior_unet_down_blocks_0_2_attention_attn_to_q",
}


@pytest.mark.parametrize("model", OTHERS)
def test_a_lora_for_another_model_is_called_so(model: str, state, tmp_path: Path) -> None:
    name = OTHERS[model]
    tensors = {f"{name}.lora_down.weight": noise(2, 8), f"{name}.lora_up.weight": noise(8, 2)}
    lora = read_lora(write(tmp_path / "a.safetensors", Written(tensors, {})))
    found = match(lora, state)
    error = nothing_fits(lora, [found], "Stage C")
    assert not found.modules and f"is a LoRA for {model} (" in str(error)
    assert "fits Stage C" in str(error)


def test_names_of_ours_are_not_taken_for_others(state) -> None:
    for make in FORMATS:
        assert trained_for(list(make(state).tensors)) is None
    stage_b = networks()["stage_b"].state_dict()
    assert trained_for([*stage_b, *(name.replace(".", "_") for name in stage_b)]) is None
    assert trained_for(["lora_te_text_model_encoder_layers_0_mlp_fc1.alpha"]) is None


def test_another_size_is_called_so(state, tmp_path: Path) -> None:
    larger = {name: torch.zeros(*(2 * n for n in v.shape)) for name, v in state.items()}
    lora = read_lora(write(tmp_path / "a.safetensors", peft(larger)))
    found = match(lora, state)
    assert not found.modules and len(found.misfits) == 4
    words = str(nothing_fits(lora, [found], "Stage C"))
    assert "another size" in words and "128×128" in words


def test_a_change_of_another_layers_shape_is_not_taken(state, tmp_path: Path) -> None:
    """As many numbers, the other way round."""
    name = "blocks.0.channelwise.4"
    out, into = state[f"{name}.weight"].shape
    assert out != into
    tensors = {
        f"prior.{name}.lora_A.weight": noise(2, out),
        f"prior.{name}.lora_B.weight": noise(into, 2),
    }
    found = match(read_lora(write(tmp_path / "a.safetensors", Written(tensors, {}))), state)
    assert not found.adapters and f"{out}×{into}" in found.misfits[0]


def incomplete(folder: Path) -> Path:
    return write(
        folder / "a.safetensors",
        Written({"prior.blocks.2.attention.to_q.lora_A.weight": noise(4, 8)}, {}),
    )


def without_rank(folder: Path) -> Path:
    name = "prior.blocks.2.attention.to_q.lora_"
    tensors = {f"{name}A.weight": torch.zeros(0, 8), f"{name}B.weight": torch.zeros(8, 0)}
    return write(folder / "a.safetensors", Written(tensors, {}))


def checkpoint(folder: Path) -> Path:
    return write(folder / "a.safetensors", Written(networks()["stage_c"].state_dict(), {}))


def other_kind(folder: Path) -> Path:
    return write(
        folder / "a.safetensors", Written({"blocks.2.attention.to_q.oft_blocks": noise(2, 2)}, {})
    )


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (incomplete, "incomplete or damaged: prior.blocks.2.attention.to_q has down"),
        (without_rank, "incomplete or damaged"),
        (checkpoint, "is Würstchen Stage C"),
        (other_kind, "holds no LoRA"),
        (missing, "does not exist"),
        (empty, "is empty"),
        (text, "is no file of weights"),
        (code_in_pickle, "is a plain Python pickle"),
    ],
)
def test_broken_files_are_told_in_a_sentence(spoil, words: str, tmp_path: Path) -> None:
    with pytest.raises(WuerstchenError, match=words) as caught:
        read_lora(spoil(tmp_path))
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)
    assert not trace_of(tmp_path).exists()


def test_infinite_weights_are_told(state, tmp_path: Path) -> None:
    written = peft(state)
    first = next(iter(written.tensors))
    written.tensors[first] = torch.full_like(written.tensors[first], float("nan"))
    _, weights = changed(write(tmp_path / "a.safetensors", written), state)
    with pytest.raises(LoraError, match=r"to_q\.weight infinite"):
        weights["blocks.2.attention.to_q.weight"]


def test_metadata_of_another_type_is_told(state, tmp_path: Path) -> None:
    config = {"prior.r": 4, "prior.lora_alpha": 8, "prior.alpha_pattern": ["blocks"]}
    about = {"lora_adapter_metadata": json.dumps(config)}
    path = write(tmp_path / "lora.safetensors", peft(state)._replace(about=about))
    with pytest.raises(LoraError, match="damaged"):
        read_lora(path)


def test_a_config_that_is_no_text_is_told(state, tmp_path: Path) -> None:
    path = write(tmp_path / "adapter_model.safetensors", peft(state))
    (tmp_path / "adapter_config.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(LoraError, match=r"adapter_config\.json cannot be read"):
        read_lora(path)


def test_an_alpha_that_was_not_given_is_the_rank(state, tmp_path: Path) -> None:
    plain = peft(state)
    path = write(tmp_path / "plain.safetensors", plain)
    about = {"ss_network_alpha": "None"}
    told = write(tmp_path / "told.safetensors", plain._replace(about=about))
    (_, expected), (_, found) = changed(path, state), changed(told, state)
    assert all(torch.equal(found[name], expected[name]) for name in state)
