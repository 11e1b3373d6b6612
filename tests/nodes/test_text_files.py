"""Text encoders out of the files that people already have: offered, and loaded."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from comfyui_wuerstchen.nodes import NODE_CLASS_MAPPINGS
from comfyui_wuerstchen.nodes.loaders import text_encoder_choices
from comfyui_wuerstchen.nodes.runtime import use
from comfyui_wuerstchen.wuerstchen_core.errors import ForeignCheckpointError, MissingPartError

from ..checkpoints.towers import OpenClipText, tokenizer, transformers_state
from .test_choices import Kinds

DEEP, SHALLOW = 24, 12  # layers of CLIP-H and of CLIP-L


@pytest.fixture
def models(tmp_path: Path) -> Iterator[Path]:
    for kind in ("wuerstchen", "text_encoders", "checkpoints"):
        (tmp_path / kind).mkdir()
    with use(Kinds(tmp_path)):
        yield tmp_path


def tower(layers: int, prefix: str = "", vocabulary: int = 500) -> dict[str, torch.Tensor]:
    state = OpenClipText(vocabulary, 64, layers, 64).state_dict()
    return {prefix + name: value for name, value in state.items()}


def test_what_holds_a_fitting_tower_is_offered(models: Path) -> None:
    hugging_face = transformers_state(tower(DEEP))
    picture_part = {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(1)}
    files = {
        "text_encoders/clip_g.safetensors": hugging_face,
        "text_encoders/clip_l.safetensors": transformers_state(tower(SHALLOW)),
        "text_encoders/t5.safetensors": {
            "encoder.block.0.layer.0.SelfAttention.q.weight": torch.zeros(1)
        },
        "checkpoints/sdxl.safetensors": {
            **picture_part,
            **tower(DEEP, "conditioner.embedders.1.model."),
        },
        "checkpoints/sd15.safetensors": {**picture_part, **tower(SHALLOW, "cond_stage_model.")},
        "wuerstchen/open_clip.safetensors": tower(DEEP),
        "wuerstchen/mine/text_encoder/model.safetensors": hugging_face,
    }
    for name, state in files.items():
        (models / name).parent.mkdir(parents=True, exist_ok=True)
        save_file(state, models / name)
    torch.save({"state_dict": tower(DEEP)}, models / "text_encoders" / "open_clip.bin")
    assert text_encoder_choices() == [
        "mine/prior",
        "mine/decoder",
        "wuerstchen-demo/prior",
        "wuerstchen-demo/decoder",
        "open_clip.safetensors",
        "clip_g.safetensors",
        "open_clip.bin",
        "sdxl.safetensors",
    ]


def write_larger_tokenizer(folder: Path) -> int:
    """The demo's with one more word; how many tokens it has."""
    tokenizer(folder)
    words = json.loads((folder / "vocab.json").read_text("utf-8"))
    (folder / "vocab.json").write_text(json.dumps({**words, "more</w>": len(words)}), "utf-8")
    return len(words) + 1


def test_a_file_is_loaded_with_a_tokenizer_of_its_vocabulary(models: Path) -> None:
    """It comes from another folder of weights; the demo's, which is smaller, is passed over."""
    tokenizer(models / "wuerstchen" / "another" / "tokenizer")
    words = models / "wuerstchen" / "mine" / "wuerstchen" / "tokenizer"
    vocabulary = write_larger_tokenizer(words)
    save_file(tower(DEEP, vocabulary=vocabulary), models / "text_encoders" / "clip.safetensors")
    node = NODE_CLASS_MAPPINGS["WuerstchenLoadTextEncoder"]
    (part,) = node().load("clip.safetensors", "float32")
    encoder = part.get()
    assert encoder.encode(["a large red star"]).shape == (1, 77, 64)
    assert Path(encoder.tokenizer.name_or_path) == words


def test_without_any_tokenizer_the_node_says_which_files_to_put_where(models: Path) -> None:
    save_file(tower(DEEP, vocabulary=499), models / "text_encoders" / "clip.safetensors")
    node = NODE_CLASS_MAPPINGS["WuerstchenLoadTextEncoder"]
    with pytest.raises(MissingPartError, match=r"vocab\.json and merges\.txt") as caught:
        node().load("clip.safetensors", "float32")
    assert str(models / "text_encoders" / "tokenizer") in str(caught.value)


def test_a_stage_loader_says_what_a_text_encoder_is(models: Path) -> None:
    save_file(tower(DEEP), models / "wuerstchen" / "clip.safetensors")
    node = NODE_CLASS_MAPPINGS["WuerstchenLoadStageC"]
    with pytest.raises(ForeignCheckpointError, match="is a CLIP text encoder.*load it as a text"):
        node().load("clip.safetensors", "float32")


def test_a_lora_in_a_model_loader_is_named(models: Path) -> None:
    lora = {"prior.blocks.2.attention.to_q.lora_A.weight": torch.zeros(4, 8)}
    save_file(lora, models / "wuerstchen" / "lora.safetensors")
    for name in ("StageC", "StageB", "StageA", "ImageEncoder", "TextEncoder"):
        node = NODE_CLASS_MAPPINGS[f"WuerstchenLoad{name}"]
        with pytest.raises(ForeignCheckpointError, match="is a LoRA"):
            node().load("lora.safetensors", "float32")


def test_folders_of_a_text_encoder_alone(models: Path) -> None:
    """Such as SDXL's `text_encoder_2`, put into the models folder by itself."""
    folder = models / "wuerstchen" / "bigG"
    vocabulary = write_larger_tokenizer(folder / "tokenizer")
    save_file(tower(DEEP, vocabulary=vocabulary), folder / "clip.safetensors")
    assert "bigG/clip.safetensors" in text_encoder_choices()
    node = NODE_CLASS_MAPPINGS["WuerstchenLoadTextEncoder"]
    (part,) = node().load("bigG/clip.safetensors", "float32")
    assert part.get().width == 64
    shutil.rmtree(folder)
    assert "bigG/clip.safetensors" not in text_encoder_choices()
