"""The whole run against diffusers' two pipelines, with tiny networks of random weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.pipelines.deprecated.wuerstchen.modeling_paella_vq_model import PaellaVQModel
from diffusers.pipelines.deprecated.wuerstchen.modeling_wuerstchen_diffnext import (
    WuerstchenDiffNeXt,
)
from diffusers.pipelines.deprecated.wuerstchen.modeling_wuerstchen_prior import WuerstchenPrior
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from comfyui_wuerstchen.wuerstchen_core.errors import SettingError
from comfyui_wuerstchen.wuerstchen_core.generate import (
    SamplerSettings,
    decode_pixels,
    sample_stage_b,
    sample_stage_c,
)
from comfyui_wuerstchen.wuerstchen_core.noise import SampleNoise
from comfyui_wuerstchen.wuerstchen_core.pipeline import Pipeline
from comfyui_wuerstchen.wuerstchen_core.stage_a import StageA, StageAConfig
from comfyui_wuerstchen.wuerstchen_core.stage_b import StageB, StageBConfig
from comfyui_wuerstchen.wuerstchen_core.stage_c import StageC, StageCConfig
from comfyui_wuerstchen.wuerstchen_core.text_encoder import TextEncoder
from comfyui_wuerstchen.wuerstchen_core.training.demo.tokenizer import build_tokenizer

from ..paths import DEMO
from ..reference.named_weights import tamed
from .reference_pipelines import from_parts, largest_difference, run_reference

PRIOR = {"c": 64, "depth": 2, "nhead": 1, "c_cond": 32}
DECODER = {
    "c_hidden": (32, 64),
    "nhead": (-1, 1),
    "blocks": (1, 2),
    "level_config": ("CT", "CTA"),
    "inject_effnet": (False, True),
    "c_cond": 24,
    "clip_embd": 32,
}
VQGAN = {"bottleneck_blocks": 1, "embed_dim": 16, "num_vq_embeddings": 8}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory):
    """(our pipeline, diffusers' prior and decoder pipelines) around the same weights."""
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer(folder)
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    torch.manual_seed(0)
    text_config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=77, hidden_act="gelu",
        eos_token_id=tokenizer.eos_token_id, bos_token_id=tokenizer.bos_token_id,
    )  # fmt: skip
    texts = [CLIPTextModel(text_config).eval() for _ in range(2)]
    lists = {k: list(v) if isinstance(v, tuple) else v for k, v in DECODER.items()}
    prior, decoder, vqgan = (
        tamed(network)
        for network in (
            WuerstchenPrior(**PRIOR),
            WuerstchenDiffNeXt(**lists),
            PaellaVQModel(**VQGAN),
        )
    )
    ours = (
        StageC(StageCConfig(**PRIOR)).eval(),
        StageB(StageBConfig(**DECODER)).eval(),
        StageA(StageAConfig(**VQGAN)).eval(),
    )
    for mine, reference in zip(ours, (prior, decoder, vqgan), strict=True):
        mine.load_state_dict(reference.state_dict())
    pipeline = Pipeline(*ours, *(TextEncoder(tokenizer, text) for text in texts))
    return pipeline, *from_parts(tokenizer, texts[0], prior, tokenizer, texts[1], decoder, vqgan)


@pytest.mark.parametrize("decoder_cfg", [0.0, 2.0])
@pytest.mark.parametrize("size", [128, 256])
def test_equals_diffusers_pipelines(both, size: int, decoder_cfg: float) -> None:
    pipeline, prior, decoder = both
    prompt, negative = "a red star on a blue background", "green"
    _, expected = run_reference(
        prior, decoder, prompt, negative, size=size, seed=5, steps=10, decoder_steps=4,
        cfg=4.0, decoder_cfg=decoder_cfg,
    )  # fmt: skip
    found = pipeline(
        prompt, negative, width=size, height=size, seed=5, steps=10, cfg=4.0,
        scheduler="uniform", decoder_steps=4, decoder_cfg=decoder_cfg,
    )[0]  # fmt: skip
    assert expected.std() > 0.01  # a picture, not a clamped constant
    assert largest_difference(found, expected) <= 1


def test_a_batch_equals_its_singles(both) -> None:
    pipeline = both[0]
    options = {"width": 128, "height": 128, "steps": 3, "decoder_steps": 2}
    batch = pipeline(["red", "blue", "green"], seed=7, **options)
    single = pipeline("blue", seed=8, **options)[0]
    assert largest_difference(batch[1], np.asarray(single) / 255) <= 1
    assert batch[0].tobytes() != batch[1].tobytes()


@pytest.mark.parametrize("size", [(64, 64), (100, 260), (129, 128), (257, 65)])
def test_any_size_comes_back_exactly(both, size: tuple[int, int]) -> None:
    width, height = size
    picture = both[0]("red", width=width, height=height, steps=1, decoder_steps=1)[0]
    assert picture.size == size


def test_seeds_and_counts_must_match(both) -> None:
    pipeline = both[0]
    with pytest.raises(SettingError, match="seeds"):
        pipeline(["a", "b"], seed=[1], width=128, height=128)
    with pytest.raises(SettingError, match="at least one prompt"):
        pipeline([])
    pictures = pipeline(
        "red", images_per_prompt=2, width=128, height=128, steps=1, decoder_steps=1, seed=[1, 2]
    )
    assert len(pictures) == 2


def test_cancelling_from_the_callback(both) -> None:
    calls: list[tuple[str, int]] = []

    def stop(stage: str, info) -> None:
        calls.append((stage, info.step))
        if stage == "stage_b":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        both[0]("red", width=128, height=128, steps=2, decoder_steps=2, callback=stop)
    assert calls == [("stage_c", 0), ("stage_c", 1), ("stage_b", 0)]


def test_a_prompt_says_in_the_pipeline_what_it_says_to_a_node(tmp_path: Path) -> None:
    """Weights, and a textual inversion in the folder: here one that means a word."""
    for entry in DEMO.iterdir():
        (tmp_path / entry.name).symlink_to(entry)
    pipeline = Pipeline.from_folder(tmp_path, dtype="float32")
    options = {"width": 256, "height": 256, "steps": 4, "decoder_steps": 2}

    def picture(prompt: str) -> np.ndarray:
        return np.asarray(pipeline(prompt, **options)[0]).astype(int)

    plain = picture("a red star")
    assert np.array_equal(picture("a (red:1.0) star"), plain)
    assert np.abs(picture("a (red:0.2) star") - plain).max() > 10
    encoders = {"clip_g": pipeline.prior_text_encoder, "clip_h": pipeline.decoder_text_encoder}
    vectors = {}
    for name, encoder in encoders.items():
        (token,) = encoder.tokenizer("red", add_special_tokens=False).input_ids
        vectors[name] = encoder.network.get_input_embeddings().weight[token].detach().clone()
    (tmp_path / "embeddings").mkdir()
    save_file(vectors, tmp_path / "embeddings" / "colour.safetensors")
    assert np.abs(picture("a embedding:colour star") - plain).max() <= 1


def test_a_long_prompt_beside_a_short_negative_one_as_with_nodes() -> None:
    pipeline = Pipeline.from_folder(DEMO, dtype="float32")
    long = "a large red star in the center on a blue background " * 8
    found = pipeline(long, width=256, height=256, seed=3, steps=3, cfg=2.0, decoder_steps=2)[0]
    texts = [pipeline.prior_text_encoder.encode([text]) for text in (long, "")]
    assert [states.shape[1] for states in texts] == [154, 77]
    settings = SamplerSettings(3, 2.0)
    latent = torch.zeros(1, 16, 6, 6)
    embedding = sample_stage_c(pipeline.stage_c, *texts, latent, SampleNoise([3]), settings)
    text = pipeline.decoder_text_encoder.encode([long])
    settings = SamplerSettings(2, 0.0, scheduler="uniform")
    stage_b = pipeline.stage_b
    latent = sample_stage_b(stage_b, embedding, text, None, None, SampleNoise([3]), settings)
    expected = decode_pixels(pipeline.stage_a, latent)[0].movedim(0, -1).numpy()
    assert largest_difference(found, expected) <= 1
