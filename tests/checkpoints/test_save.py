"""What is saved has the published layout: diffusers and transformers load it, and so do we."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import WuerstchenDecoderPipeline, WuerstchenPriorPipeline
from diffusers.pipelines.deprecated.wuerstchen.modeling_paella_vq_model import PaellaVQModel
from diffusers.pipelines.deprecated.wuerstchen.modeling_wuerstchen_diffnext import (
    WuerstchenDiffNeXt,
)
from diffusers.pipelines.deprecated.wuerstchen.modeling_wuerstchen_prior import WuerstchenPrior
from transformers import CLIPTextModel, CLIPTokenizer

from comfyui_wuerstchen.wuerstchen_core.checkpoints import (
    find_parts,
    load_image_encoder,
    load_stage_b,
    load_text_encoder,
    save_network,
)
from comfyui_wuerstchen.wuerstchen_core.errors import CheckpointError
from comfyui_wuerstchen.wuerstchen_core.files import PARTIAL_PREFIX
from comfyui_wuerstchen.wuerstchen_core.image_encoder import ImageEncoder, ImageEncoderConfig

from .tiny import IMAGE_ENCODER, networks, output

CPU = torch.device("cpu")
CLASSES = {"stage_c": WuerstchenPrior, "stage_b": WuerstchenDiffNeXt, "stage_a": PaellaVQModel}


@pytest.mark.parametrize("part", CLASSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_diffusers_classes_load_it(part: str, dtype: torch.dtype, tmp_path: Path) -> None:
    network = networks()[part]
    save_network(network, tmp_path, dtype)
    loaded = CLASSES[part].from_pretrained(tmp_path).state_dict()
    assert loaded.keys() == network.state_dict().keys()
    for name, value in network.state_dict().items():
        assert torch.equal(loaded[name], value.to(dtype).to(value.dtype)), name
    assert (
        json.loads((tmp_path / "config.json").read_text())["_class_name"] == CLASSES[part].__name__
    )


def test_diffusers_pipelines_load_it(published: Path) -> None:
    prior = WuerstchenPriorPipeline.from_pretrained(published / "wuerstchen-prior")
    decoder = WuerstchenDecoderPipeline.from_pretrained(published / "wuerstchen")
    parts = networks()
    for loaded, part in ((prior.prior, "stage_c"), (decoder.decoder, "stage_b")):
        expected = parts[part].state_dict()
        assert all(torch.equal(value, expected[n]) for n, value in loaded.state_dict().items())
    assert prior.text_encoder.dtype == decoder.text_encoder.dtype == torch.float32
    assert (prior.config.latent_mean, prior.config.latent_std) == (42.0, 1.0)
    assert decoder.config.latent_dim_scale == 10.67
    assert prior.scheduler.config.s == 0.008


def test_transformers_load_the_text_encoder(published: Path) -> None:
    folder = published / "wuerstchen-prior"
    encoder = load_text_encoder(folder / "text_encoder", "float32", CPU)
    tower = CLIPTextModel.from_pretrained(folder / "text_encoder")
    texts = ["a large red star on a blue background", "Grüße, 7 zebras"]
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    ids = tokenizer(texts, padding="max_length", return_tensors="pt")
    with torch.no_grad():
        expected = tower(**ids).last_hidden_state
    assert torch.equal(encoder.encode(texts), expected)


def test_vocabulary_files_say_the_same_as_tokenizer_json(published: Path, tmp_path: Path) -> None:
    """transformers 4 reads vocab.json and merges.txt, 5 prefers tokenizer.json."""
    folder = published / "wuerstchen-prior" / "tokenizer"
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    texts = ["a large red star on a blue background", "Grüße, 7 zebras", ""]
    both = [CLIPTokenizer.from_pretrained(place)(texts).input_ids for place in (folder, tmp_path)]
    assert both[0] == both[1]


def test_image_encoder_round_trip(tmp_path: Path) -> None:
    network = networks()["image_encoder"]
    save_network(network, tmp_path, torch.float32)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["stages"] == [list(stage) for stage in IMAGE_ENCODER.stages]
    assert torch.equal(output(load_image_encoder(tmp_path, "float32", CPU)), output(network))


def test_published_image_encoder_has_the_published_config(tmp_path: Path) -> None:
    save_network(ImageEncoder(ImageEncoderConfig()), tmp_path)
    assert json.loads((tmp_path / "config.json").read_text()) == {
        "_class_name": "EfficientNetEncoder",
        "c_latent": 16,
        "c_cond": 1280,
        "effnet": "efficientnet_v2_s",
    }
    (tmp_path / "config.json").write_text('{"c_latent": 16}')
    assert load_image_encoder(tmp_path, "float32", CPU).config == ImageEncoderConfig()


def test_loaded_weights_do_not_hold_their_file(published: Path, tmp_path: Path) -> None:
    """Saving over the folder that a network came from keeps both whole."""
    source = find_parts(published).require("stage_b")
    save_network(load_stage_b(source, "float32", CPU, fold=False), tmp_path, torch.float32)
    network = load_stage_b(tmp_path, "float32", CPU, fold=False)
    weights = tmp_path / "diffusion_pytorch_model.safetensors"
    before = weights.read_bytes()
    weights.write_bytes(b"")
    save_network(network, tmp_path, torch.float32)
    assert weights.read_bytes() == before


def test_folded_stage_b_is_refused(published: Path, tmp_path: Path) -> None:
    folded = load_stage_b(find_parts(published).require("stage_b"), "float32", CPU)
    with pytest.raises(CheckpointError, match="fold=False"):
        save_network(folded, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weights_beyond_float16_are_refused(tmp_path: Path) -> None:
    network = networks()["stage_c"]
    with torch.no_grad():
        network.projection.weight[0] = 1e6
    with pytest.raises(CheckpointError, match="projection.weight"):
        save_network(network, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_failed_writing_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = networks()["stage_a"]
    save_network(network, tmp_path)
    before = (tmp_path / "diffusion_pytorch_model.safetensors").read_bytes()

    def half(state: object, path: Path, **rest: object) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("comfyui_wuerstchen.wuerstchen_core.checkpoints.save.save_file", half)
    with pytest.raises(OSError, match="disk full"):
        save_network(network, tmp_path)
    assert (tmp_path / "diffusion_pytorch_model.safetensors").read_bytes() == before
    assert not list(tmp_path.glob(f"{PARTIAL_PREFIX}*"))
