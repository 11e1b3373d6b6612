"""The nodes on the demo checkpoint, called as ComfyUI calls them."""

import gc
import weakref
from typing import Any

import pytest
import torch

from comfyui_wuerstchen.nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS, runtime
from comfyui_wuerstchen.wuerstchen_core.errors import (
    Cancelled,
    CheckpointError,
    SettingError,
    WireError,
)

from .demo import call, decoder, empty, encode, picture, prior


def test_every_node_is_declared_in_full() -> None:
    assert NODE_CLASS_MAPPINGS.keys() == NODE_DISPLAY_NAME_MAPPINGS.keys()
    for node_id, node in NODE_CLASS_MAPPINGS.items():
        assert node_id.startswith("Wuerstchen")
        assert node.CATEGORY.startswith("Würstchen/") and node.DESCRIPTION
        assert len(node.RETURN_TYPES) == len(node.RETURN_NAMES)
        for group in node.INPUT_TYPES().values():
            for name, (kind, options) in group.items():
                assert options.get("tooltip"), (node_id, name)
                if kind in ("INT", "FLOAT"):
                    assert options["min"] <= options["default"] <= options["max"]


def test_the_contract_of_ids_and_names() -> None:
    names = {
        node_id: ([*node.INPUT_TYPES()["required"]], [*node.INPUT_TYPES().get("optional", {})])
        for node_id, node in NODE_CLASS_MAPPINGS.items()
    }
    sampler = ["seed", "steps", "cfg", "sampler_name", "scheduler", "denoise"]
    single = (["name", "dtype"], [])
    designed = {
        "WuerstchenLoadPipeline": (["folder", "dtype"], []),
        "WuerstchenLoadStageC": single,
        "WuerstchenLoadStageB": single,
        "WuerstchenLoadStageA": single,
        "WuerstchenLoadTextEncoder": single,
        "WuerstchenLoadImageEncoder": single,
        "WuerstchenOptimize": (
            ["compile", "storage", "residency", "step_cache", "guidance_end"],
            ["stage_c", "stage_b", "stage_a"],
        ),
        "WuerstchenTextEncode": (["text_encoder", "text"], []),
        "WuerstchenTextEncodeBatch": (["text_encoder", "texts"], []),
        "WuerstchenEmptyLatent": (["width", "height", "batch_size"], []),
        "WuerstchenSeedList": (["samples", "seeds"], []),
        "WuerstchenXYValues": (["x_values", "x_kind", "y_values", "y_kind"], []),
        "WuerstchenXYGrid": (["images", "x_labels", "y_labels"], []),
        "WuerstchenMixEmbeddings": (
            ["latent_1", "latent_2", "weight_1", "weight_2", "method"],
            ["latent_3", "weight_3", "latent_4", "weight_4"],
        ),
        "WuerstchenCollage": (["below", "above", "mask"], []),
        "WuerstchenUpscaleStageC": (["samples", "width", "height"], []),
        "WuerstchenStageCSampler": (
            ["stage_c", "positive", "latent_image", *sampler],
            ["negative"],
        ),
        "WuerstchenStageBSampler": (
            ["stage_b", "stage_c_latent", *sampler],
            ["positive", "negative", "latent_image"],
        ),
        "WuerstchenStageADecode": (["stage_a", "samples"], []),
        "WuerstchenStageAEncode": (["stage_a", "pixels"], []),
        "WuerstchenImageEncode": (["image_encoder", "pixels"], []),
        "WuerstchenV1LoadPipeline": (["folder", "dtype"], []),
        "WuerstchenV1StageCSampler": (
            ["stage_c", "positive", "latent_image", *sampler],
            ["negative"],
        ),
        "WuerstchenV1StageBSampler": (
            [
                "stage_b",
                "stage_c_latent",
                "positive",
                "seed",
                "steps",
                "cfg",
                "cfg_end",
                "temperature",
                "temperature_end",
                "mode",
                "denoise",
            ],
            ["negative", "latent_image", "stage_a"],
        ),
        "WuerstchenV1StageADecode": (["stage_a", "samples"], []),
        "WuerstchenV1StageAEncode": (["stage_a", "pixels"], []),
        "WuerstchenV1ImageEncode": (["image_encoder", "pixels"], []),
    }
    assert {node_id: names[node_id] for node_id in designed} == designed


@pytest.mark.parametrize("size", [(256, 256), (200, 130), (129, 257)])
def test_text_to_picture_of_any_size(parts, size: tuple[int, int]) -> None:
    width, height = size
    latent = prior(parts, empty(width, height))
    image = call("WuerstchenStageADecode", stage_a=parts["stage_a"], samples=decoder(parts, latent))
    assert image.shape == (1, height, width, 3)
    assert image.min() >= 0 and image.max() <= 1


def test_a_batch_equals_its_singles(parts) -> None:
    batch = decoder(parts, prior(parts, empty(batch_size=3)))["samples"]
    alone = prior(parts, empty(), seed=2)
    assert torch.allclose(batch[1:2], decoder(parts, alone, seed=2)["samples"], atol=1e-4)
    # One cut out of a batch keeps its seed, as the stock Latent From Batch node marks it.
    cut = {**empty(), "batch_index": [1]}
    again = decoder(parts, prior(parts, cut))["samples"]
    assert torch.allclose(batch[1:2], again, atol=1e-4)


def test_batch_indices_fit_the_batch(parts) -> None:
    blended = {**empty(batch_size=2), "batch_index": [1]}  # as of one picture with a batch
    first, second = prior(parts, blended)["samples"]
    assert torch.equal(first, second)
    with pytest.raises(WireError, match="2 samples and the batch indices of 3"):
        prior(parts, {**empty(batch_size=2), "batch_index": [0, 1, 2]})


def test_stage_b_with_and_without_text(parts) -> None:
    latent = prior(parts, empty())
    positive, negative = encode(parts, "a red star", "decoder"), encode(parts, "", "decoder")
    without = decoder(parts, latent)["samples"]
    with_text = decoder(parts, latent, positive=positive)["samples"]
    guided = decoder(parts, latent, positive=positive, negative=negative, cfg=2.0)["samples"]
    half = decoder(parts, latent, positive=positive, cfg=2.0)["samples"]
    results = [without, with_text, guided, half]
    assert all(r.isfinite().all() for r in results)
    assert not any(torch.equal(a, b) for a, b in zip(results, results[1:], strict=False))


def test_no_strength_keeps_the_latent(parts) -> None:
    encoded = call("WuerstchenImageEncode", image_encoder=parts["image_encoder"], pixels=picture())
    assert encoded["samples"].shape == (1, 16, 6, 6)
    kept = prior(parts, encoded, denoise=0.0)
    assert torch.equal(kept["samples"], encoded["samples"])
    little = prior(parts, encoded, denoise=0.1)["samples"] - encoded["samples"]
    much = prior(parts, encoded, denoise=0.9)["samples"] - encoded["samples"]
    assert little.square().mean() < much.square().mean()
    assert kept["wuerstchen_size"] == (256, 256)


def test_stage_a_there_and_back(parts) -> None:
    pixels = picture(200)
    latent = call("WuerstchenStageAEncode", stage_a=parts["stage_a"], pixels=pixels)
    assert latent["samples"].shape == (1, 4, 64, 64)
    back = call("WuerstchenStageADecode", stage_a=parts["stage_a"], samples=latent)
    assert back.shape == pixels.shape
    assert (back - pixels).square().mean() < 10**-2.6  # 26 dB
    encoded = call("WuerstchenImageEncode", image_encoder=parts["image_encoder"], pixels=pixels)
    kept = decoder(parts, encoded, latent_image=latent, denoise=0.0)
    assert torch.allclose(kept["samples"], latent["samples"], atol=1e-5)


@pytest.mark.parametrize(
    ("node", "changes", "words"),
    [
        ("prior", {"latent_image": {"samples": torch.zeros(1, 4, 64, 64)}}, "Stage C latent"),
        ("prior", {"positive": [[torch.zeros(1, 77, 5), {}]]}, "Stage C reads"),
        ("prior", {"positive": [[torch.zeros(2, 77, 192), {}]] }, "2 texts for 1"),
        ("prior", {"negative": None}, "negative"),
        ("prior", {"sampler_name": "euler"}, "ddpm"),
        ("decoder", {"stage_c_latent": {"samples": torch.zeros(1, 4, 64, 64)}}, "Stage C latent"),
        ("decoder", {"stage_c_latent": {"samples": torch.zeros(1, 16, 5, 6)}}, "multiples of 3"),
        ("decoder", {"denoise": 0.5}, "latent_image"),
        ("decoder", {"latent_image": {"samples": torch.zeros(1, 4, 8, 8)}}, "latent_image"),
        ("decoder", {"positive": [[torch.zeros(1, 77, 1280), {}]]}, "Stage B reads"),
    ],
)  # fmt: skip
def test_wrong_wires_are_named(parts, node: str, changes: dict[str, Any], words: str) -> None:
    good = {"samples": torch.zeros(1, 16, 6, 6)}
    with pytest.raises((WireError, SettingError), match=words):
        if node == "prior":
            prior(parts, good, **changes)
        else:
            decoder(parts, good, **changes)


def test_wrong_pictures_and_latents_are_named(parts) -> None:
    with pytest.raises(WireError, match="Stage B latent"):
        call("WuerstchenStageADecode", stage_a=parts["stage_a"],
             samples={"samples": torch.zeros(1, 16, 6, 6)})  # fmt: skip
    with pytest.raises(SettingError, match="64 to 4096"):
        call("WuerstchenStageAEncode", stage_a=parts["stage_a"], pixels=torch.zeros(1, 9, 9, 3))
    with pytest.raises(WireError, match="picture"):
        call("WuerstchenImageEncode", image_encoder=parts["image_encoder"],
             pixels=torch.zeros(1, 64, 64, 1))  # fmt: skip


def test_loaders_of_single_parts(parts) -> None:
    for node_id, part in (
        ("WuerstchenLoadStageC", "stage_c"),
        ("WuerstchenLoadStageB", "stage_b"),
        ("WuerstchenLoadStageA", "stage_a"),
        ("WuerstchenLoadImageEncoder", "image_encoder"),
    ):
        loaded = call(node_id, name="wuerstchen-demo", dtype="float32").get()
        expected = parts[part].get()
        assert loaded.config == expected.config
        for (name, a), b in zip(
            loaded.state_dict().items(), expected.state_dict().values(), strict=True
        ):
            assert torch.equal(a, b), name
    for role in ("prior", "decoder"):
        encoder = call("WuerstchenLoadTextEncoder", name=f"wuerstchen-demo/{role}", dtype="float32")
        assert encoder.get().width == parts[f"{role}_text_encoder"].get().width


@pytest.mark.parametrize("name", ["nothing", "", "..", "../..", "/etc", "wuerstchen-demo/../.."])
def test_names_outside_the_models_folders_are_refused(name: str) -> None:
    with pytest.raises(CheckpointError):
        call("WuerstchenLoadPipeline", folder=name, dtype="auto")


def test_progress_and_cancel(parts) -> None:
    seen: list[tuple[int, int]] = []

    class Host(runtime.PlainSurroundings):
        def progress(self, value: int, total: int, preview: Any = None) -> None:
            seen.append((value, total))
            if value == 3:
                raise Cancelled

    with runtime.use(Host()), pytest.raises(Cancelled):
        prior(parts, empty())
    assert seen == [(1, 8), (2, 8), (3, 8)]
    assert isinstance(runtime.surroundings(), runtime.PlainSurroundings)


def test_weights_go_with_the_last_who_holds_them(parts) -> None:
    gc.disable()  # a reference cycle would keep two sets of weights for a while
    try:
        (part,) = NODE_CLASS_MAPPINGS["WuerstchenLoadStageA"]().load("wuerstchen-demo", "float32")
        network = weakref.ref(part.get())
        del part
        assert network() is None
    finally:
        gc.enable()
