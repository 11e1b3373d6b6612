"""v1's nodes on a tiny Würstchen v1 in the published layout, called as ComfyUI calls them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from comfyui_wuerstchen.nodes import NODE_CLASS_MAPPINGS, runtime
from comfyui_wuerstchen.nodes.parts import Part
from comfyui_wuerstchen.wuerstchen_core.errors import Cancelled, SettingError, WireError
from comfyui_wuerstchen.wuerstchen_core.preview import LinearMap

from ..nodes.demo import call

STAGE_C = {
    "seed": 1,
    "steps": 4,
    "cfg": 3.0,
    "sampler_name": "ddpm",
    "scheduler": "uniform",
    "denoise": 1.0,
}
STAGE_B = {
    "seed": 1,
    "steps": 3,
    "cfg": 2.0,
    "cfg_end": 2.0,
    "temperature": 1.0,
    "temperature_end": 0.6,
    "mode": "multinomial",
    "denoise": 1.0,
}


class Host(runtime.PlainSurroundings):
    """Has the tiny weights; looks at previews and keeps what is learned when asked to."""

    def __init__(self, models: Path) -> None:
        self.models = models
        self.previews: Any = None
        self.seen: list[tuple[int, int, Image.Image | None]] = []
        self.learned: list[str] = []
        self.cancel = False

    def models_dirs(self, kind: str) -> list[Path]:
        return [self.models] if kind == "wuerstchen" else []

    def progress(self, value: int, total: int, preview: Image.Image | None = None) -> None:
        self.check_cancelled()
        self.seen.append((value, total, preview))

    def check_cancelled(self) -> None:
        if self.cancel:
            raise Cancelled

    def lookup(self, key: str) -> LinearMap | None:
        return None

    def learn(self, key: str, latents: torch.Tensor, pixels: torch.Tensor) -> None:
        self.learned.append(key)


@pytest.fixture
def host(published_v1: Path) -> Iterator[Host]:
    host = Host(published_v1.parent)
    with runtime.use(host):
        yield host


@pytest.fixture
def parts(host: Host) -> dict[str, Part[Any]]:
    node = NODE_CLASS_MAPPINGS["WuerstchenV1LoadPipeline"]
    loaded = call("WuerstchenV1LoadPipeline", folder="wuerstchen-v1", dtype="float32")
    return dict(zip(node.RETURN_NAMES, loaded, strict=True))


def text(parts: dict[str, Part[Any]], words: str) -> Any:
    return call("WuerstchenTextEncode", text_encoder=parts["text_encoder"], text=words)


def empty(width: int = 128, height: int = 128, batch: int = 1) -> Any:
    return call("WuerstchenEmptyLatent", width=width, height=height, batch_size=batch)


def prior(parts: dict[str, Part[Any]], latent: Any, **changes: Any) -> Any:
    inputs = {"stage_c": parts["stage_c"], "positive": text(parts, "a red star")}
    inputs |= {"negative": text(parts, ""), "latent_image": latent}
    return call("WuerstchenV1StageCSampler", **{**inputs, **STAGE_C, **changes})


def tokens(parts: dict[str, Part[Any]], latent: Any, **changes: Any) -> Any:
    inputs = {"stage_b": parts["stage_b"], "positive": text(parts, "a red star")}
    inputs |= {"negative": text(parts, ""), "stage_c_latent": latent}
    return call("WuerstchenV1StageBSampler", **{**inputs, **STAGE_B, **changes})


def decode(parts: dict[str, Part[Any]], latent: Any) -> torch.Tensor:
    return call("WuerstchenV1StageADecode", stage_a=parts["stage_a"], samples=latent)


@pytest.mark.parametrize("size", [(128, 128), (200, 100)])
def test_text_to_picture_of_any_size(parts, size: tuple[int, int]) -> None:
    width, height = size
    made = tokens(parts, prior(parts, empty(width, height)))
    assert made["samples"].shape[1] == 1 and len(made["samples"].unique()) > 4
    picture = decode(parts, made)
    assert picture.shape == (1, height, width, 3) and picture.std() > 0


def test_a_batch_equals_its_singles(parts) -> None:
    batch = tokens(parts, prior(parts, empty(batch=3)))["samples"]
    alone = tokens(parts, prior(parts, empty(), seed=2), seed=2)["samples"]
    assert (batch[1] == alone[0]).float().mean() > 0.999
    cut = {**empty(), "batch_index": [1]}
    again = tokens(parts, prior(parts, cut))["samples"]
    assert (batch[1] == again[0]).float().mean() > 0.999


def test_a_picture_there_and_back(parts) -> None:
    picture = torch.rand(1, 100, 200, 3, generator=torch.Generator().manual_seed(0))
    encoded = call("WuerstchenV1StageAEncode", stage_a=parts["stage_a"], pixels=picture)
    assert encoded["samples"].shape == (1, 1, 32, 64)
    assert decode(parts, encoded).shape == picture.shape
    embedding = call(
        "WuerstchenV1ImageEncode", image_encoder=parts["image_encoder"], pixels=picture
    )
    assert embedding["samples"].shape == (1, 16, 3, 6)
    kept = tokens(parts, embedding, denoise=0.0, latent_image=encoded)
    assert torch.equal(kept["samples"], encoded["samples"])
    changed = tokens(parts, embedding, denoise=0.5, latent_image=encoded)["samples"]
    assert not torch.equal(changed, encoded["samples"])
    mask = torch.zeros(1, 100, 200)
    mask[..., 100:] = 1
    part = tokens(parts, embedding, latent_image={**encoded, "noise_mask": mask})["samples"]
    assert torch.equal(part[..., :32], encoded["samples"][..., :32])
    assert not torch.equal(part[..., 32:], encoded["samples"][..., 32:])
    varied = prior(parts, embedding, denoise=0.5)
    assert not torch.allclose(varied["samples"], embedding["samples"])


def test_latents_of_the_other_version_are_refused(parts) -> None:
    v2 = dict(
        zip(
            NODE_CLASS_MAPPINGS["WuerstchenLoadPipeline"].RETURN_NAMES,
            call("WuerstchenLoadPipeline", folder="wuerstchen-demo", dtype="float32"),
            strict=True,
        )
    )
    made = prior(parts, empty())
    v2_b = {"seed": 1, "steps": 1, "cfg": 0.0, "sampler_name": "ddpm", "scheduler": "uniform"}
    with pytest.raises(WireError, match="v1"):
        call("WuerstchenStageBSampler", stage_b=v2["stage_b"], stage_c_latent=made, denoise=1.0,
             **v2_b)  # fmt: skip
    with pytest.raises(WireError, match="v1"):
        call("WuerstchenStageCSampler", stage_c=v2["stage_c"], latent_image=made,
             positive=text(parts, ""), negative=text(parts, ""), **STAGE_C)  # fmt: skip
    drawn = tokens(parts, made)
    with pytest.raises(WireError, match="v1"):
        call("WuerstchenStageADecode", stage_a=v2["stage_a"], samples=drawn)
    with pytest.raises(WireError, match="tokens"):
        decode(parts, {"samples": torch.zeros(1, 4, 32, 32)})
    with pytest.raises(WireError, match="fractions"):
        decode(parts, {"samples": drawn["samples"] * 0.5 + 0.25})
    with pytest.raises(WireError, match="comes from v2"):
        tokens(parts, {"samples": torch.full((1, 16, 3, 3), 40.0)})


def test_modes(parts) -> None:
    latent = prior(parts, empty())
    with pytest.raises(SettingError, match="stage_a"):
        tokens(parts, latent, mode="quant")
    made = [
        tokens(parts, latent, mode=mode, stage_a=parts["stage_a"])["samples"]
        for mode in ("multinomial", "argmax", "quant")
    ]
    assert not any(torch.equal(a, b) for a, b in zip(made, made[1:], strict=False))


def test_progress_previews_and_learning(parts, host: Host) -> None:
    latent = prior(parts, empty(200, 100))
    host.seen.clear()
    without = tokens(parts, latent)
    assert [(value, total) for value, total, _ in host.seen] == [(1, 3), (2, 3), (3, 3)]
    host.previews, host.seen = host, []
    latent = prior(parts, empty(200, 100))
    host.seen.clear()
    made = tokens(parts, latent, stage_a=parts["stage_a"])
    assert torch.equal(made["samples"], without["samples"])
    pictures = [preview for _, _, preview in host.seen]
    assert [preview.size for preview in pictures if preview] == [(256, 128)] * 3
    decode(parts, made)
    assert [key.split("/")[:2] for key in host.learned] == [["v1", "stage_c"]]


def test_cancelling(parts, host: Host) -> None:
    latent = prior(parts, empty())
    host.cancel = True
    with pytest.raises(Cancelled):
        tokens(parts, latent)


def test_presets_are_those_of_the_original_notebook() -> None:
    def presets(node_id: str) -> dict[str, Any]:
        required = NODE_CLASS_MAPPINGS[node_id].INPUT_TYPES()["required"]
        return {name: options.get("default") for name, (_, options) in required.items()}

    stage_c = presets("WuerstchenV1StageCSampler")
    assert (stage_c["steps"], stage_c["cfg"], stage_c["scheduler"]) == (60, 6.0, "uniform")
    stage_b = presets("WuerstchenV1StageBSampler")
    assert (stage_b["steps"], stage_b["cfg"], stage_b["cfg_end"]) == (8, 2.0, 2.0)
    assert (stage_b["temperature"], stage_b["temperature_end"]) == (1.0, 0.6)
    # v2's own presets stay as they are.
    assert presets("WuerstchenStageCSampler")["steps"] == 29


def test_the_prior_refuses_latents_of_v2(parts: dict[str, Any]) -> None:
    """Their numbers are 42 times as large."""
    text = call("WuerstchenTextEncode", text_encoder=parts["text_encoder"], text="a star")
    of_v2 = {"samples": 42 * torch.randn(1, 16, 6, 6)}
    with pytest.raises(WireError, match="comes from v2"):
        call(
            "WuerstchenV1StageCSampler",
            stage_c=parts["stage_c"],
            positive=text,
            latent_image=of_v2,
            seed=1,
            steps=2,
            cfg=1.0,
            sampler_name="ddpm",
            scheduler="uniform",
            denoise=0.5,
        )
