"""The exact tensors of the published files are accepted, in each layout and dtype, and no others.

Files have the published names, shapes and dtypes, and holes for data.
"""

import json
from functools import cache
from pathlib import Path

import pytest
import torch
from diffusers.pipelines.deprecated.wuerstchen.modeling_paella_vq_model import PaellaVQModel
from diffusers.pipelines.deprecated.wuerstchen.modeling_wuerstchen_diffnext import (
    WuerstchenDiffNeXt,
)
from diffusers.pipelines.deprecated.wuerstchen.modeling_wuerstchen_prior import WuerstchenPrior

from comfyui_wuerstchen.wuerstchen_core.checkpoints import (
    check_part,
    find_parts,
    load_stage_a,
    save_network,
)
from comfyui_wuerstchen.wuerstchen_core.errors import MismatchedCheckpointError
from comfyui_wuerstchen.wuerstchen_core.image_encoder import ImageEncoder, ImageEncoderConfig

from .test_check import write_holes
from .test_sizes import PUBLISHED
from .tiny import in_original_layout, networks, output, write_file

CPU = torch.device("cpu")
CLASSES = {
    "stage_c": (
        WuerstchenPrior,
        {"c_in": 16, "c": 1536, "c_cond": 1280, "c_r": 64, "depth": 32, "nhead": 24},
    ),
    "stage_b": (WuerstchenDiffNeXt, {}),
    "stage_a": (PaellaVQModel, {}),
    "image_encoder": (ImageEncoder, {}),
}
# The first revisions' names of the classes, of folders, and fields that mean nothing any more.
OLD = {
    "stage_c": ("Prior", "prior", {"latent_size": [12, 12]}),
    "stage_b": ("DiffNeXt", "generator", {"self_attn": True}),
    "stage_a": ("VQModelPaella", "vqgan", {}),
    "image_encoder": ("EfficientNetEncoder", "efficient_net", {"c_cond": 1280}),
}


@cache
def published_state(part: str) -> dict[str, torch.Tensor]:
    """diffusers' own names and shapes, without memory; ours for the image encoder, which it has
    not (tests/reference compares them with torchvision's)."""
    build, config = CLASSES[part]
    with torch.device("meta"):
        network = build(ImageEncoderConfig()) if part == "image_encoder" else build(**config)
    return network.state_dict()


@pytest.mark.parametrize("part", CLASSES)
@pytest.mark.parametrize(
    ("layout", "dtype"),
    [
        ("diffusers", torch.float32),
        ("diffusers", torch.float8_e4m3fn),
        ("original", torch.float32),
        ("original", torch.bfloat16),
    ],
)
def test_a_file_of_the_published_tensors(
    part: str, dtype: torch.dtype, layout: str, tmp_path: Path
) -> None:
    state = published_state(part)
    named = in_original_layout(state) if layout == "original" else state
    path = tmp_path / "weights.safetensors"
    write_holes(path, {name: value.shape for name, value in named.items()}, dtype)
    check_part(part, path)


@pytest.mark.parametrize(
    ("part", "spoil"),
    [
        ("stage_c", "missing"),
        ("stage_b", "reshaped"),
        ("stage_a", "extra"),
        ("image_encoder", "missing"),
        ("image_encoder", "reshaped"),
    ],
)
def test_one_tensor_that_is_not_the_published_one(part: str, spoil: str, tmp_path: Path) -> None:
    shapes = {name: value.shape for name, value in published_state(part).items()}
    name = next(name for name in reversed(shapes) if name.endswith("bias"))
    if spoil == "missing":
        del shapes[name]
    else:
        shapes["extra.bias" if spoil == "extra" else name] = torch.Size([3])
    path = tmp_path / "weights.safetensors"
    write_holes(path, shapes, torch.float16)
    with pytest.raises(MismatchedCheckpointError, match="1 tensors"):
        check_part(part, path)


@pytest.mark.parametrize("part", CLASSES)
def test_diffusers_has_the_tensors_that_we_count(part: str) -> None:
    expected = PUBLISHED[part][2]
    if expected is not None:
        state = published_state(part)
        assert (len(state), len(in_original_layout(state))) == expected


@pytest.mark.parametrize("part", OLD)
def test_first_revisions(part: str, tmp_path: Path) -> None:
    class_name, folder, extra = OLD[part]
    network = networks()[part]
    place = tmp_path / "wuerstchen" / folder
    save_network(network, place, torch.float32)
    config = json.loads((place / "config.json").read_text())
    if part == "stage_a":
        for old, new in (
            ("c_hidden", "embed_dim"),
            ("c_latent", "latent_channels"),
            ("codebook_size", "num_vq_embeddings"),
        ):
            config[old] = config.pop(new)
    stated = {**extra, **config, "_class_name": class_name}
    (place / "config.json").write_text(json.dumps(stated))
    assert getattr(find_parts(tmp_path), part) == place
    check_part(part, place)


@pytest.mark.parametrize("names", ["diffusers", "original"])
def test_stage_a_out_of_a_stable_cascade_bundle(names: str, tmp_path: Path) -> None:
    network = networks()["stage_a"]
    state = network.state_dict()
    if names == "original":
        state = in_original_layout(state)
    bundle = {
        "model.diffusion_model.effnet_mapper.0.weight": torch.zeros(2, 2),
        **{f"vae.{name}": value for name, value in state.items()},
    }
    path = write_file(tmp_path / "stable_cascade_stage_b.safetensors", bundle)
    assert torch.equal(output(load_stage_a(path, "float32", CPU)), output(network))


@pytest.mark.parametrize("part", ["stage_c", "stage_b"])
def test_out_of_a_comfyui_checkpoint(part: str, tmp_path: Path) -> None:
    state = networks()[part].state_dict()
    bundle = {
        **{f"model.diffusion_model.{name}": value for name, value in state.items()},
        "vae.other": torch.zeros(1),
    }
    check_part(part, write_file(tmp_path / "checkpoint.safetensors", bundle))


def test_a_packed_tensor_that_cannot_be_split_is_named(tmp_path: Path) -> None:
    state = in_original_layout(networks()["stage_c"].state_dict())
    name = "blocks.2.attention.attn.in_proj_weight"
    for shape in ((), (4, 4)):
        path = write_file(tmp_path / "c.pt", {**state, name: torch.zeros(shape)})
        with pytest.raises(MismatchedCheckpointError, match="in_proj_weight"):
            check_part("stage_c", path)
