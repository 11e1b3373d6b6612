"""What comes by a wire and is not what a node takes: one sentence, never a Python error."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from comfyui_wuerstchen.nodes import NODE_CLASS_MAPPINGS
from comfyui_wuerstchen.nodes.runtime import PlainSurroundings, use
from comfyui_wuerstchen.wuerstchen_core.errors import SettingError, WireError
from comfyui_wuerstchen.wuerstchen_core.stage_c import from_embedding

from .demo import call, empty, encode, prior


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": "1"}, "`seed` got '1' and takes a whole number"),
        ({"seed": 1.5}, "`seed` got 1.5"),
        ({"seed": -1}, "`seed` is -1"),
        ({"steps": "4"}, "`steps` got '4'"),
        ({"steps": 0}, "`steps` is 0; 1 to 1000"),
        ({"cfg": "2"}, "`cfg` got '2' and takes a number"),
        ({"denoise": None}, "`denoise` got None"),
        ({"sampler_name": 3}, "`sampler_name` got 3 and takes a text"),
    ],
)
def test_a_sampler_says_what_it_got(parts, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        prior(parts, empty(), **changes)


def test_whole_numbers_may_come_as_floats(parts) -> None:
    found = prior(parts, empty(), steps=2.0, seed=3.0)["samples"]
    assert torch.equal(found, prior(parts, empty(), steps=2, seed=3)["samples"])


@pytest.mark.parametrize("size", [0, -1, 5000, "2"])
def test_a_batch_has_pictures(size: Any) -> None:
    with pytest.raises(SettingError, match="`batch_size`"):
        empty(batch_size=size)


def test_a_number_is_no_text(parts) -> None:
    with pytest.raises(SettingError, match="`text` got 7"):
        encode(parts, 7)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mask": torch.zeros(1, 0, 4)}, "covers nothing"),
        ({"area": (1, 4, 4, 0, 0, 0)}, "an area of frames"),
        ({"control": object()}, "carries a ControlNet"),
    ],
)
def test_what_a_conditioning_may_not_carry(parts, options: dict[str, Any], words: str) -> None:
    ((states, _),) = encode(parts, "a red star")
    with pytest.raises(WireError, match=words):
        prior(parts, empty(), positive=[[states, options], [states, {}]])


def mixed(*latents: Any, method: str = "slerp") -> Any:
    weights = {"weight_1": 1.0, "weight_2": 1.0}
    return call(
        "WuerstchenMixEmbeddings",
        latent_1=latents[0],
        latent_2=latents[1],
        method=method,
        **weights,
    )


def test_latents_of_both_versions_are_not_mixed() -> None:
    of_v1 = {**empty(), "wuerstchen_v1": True}
    with pytest.raises(WireError, match="some from v2"):
        mixed(empty(), of_v1)
    with pytest.raises(WireError, match="some from v2"):
        call("WuerstchenCollage", below=of_v1, above=empty(), mask=torch.ones(1, 8, 8))


@pytest.mark.parametrize("version", [1, 2])
def test_slerp_keeps_the_length_in_the_space_of_its_version(version: int) -> None:
    one, other = torch.randn(2, 1, 16, 6, 6)
    mark = {"wuerstchen_v1": True} if version == 1 else {}
    found = mixed({"samples": one, **mark}, {"samples": other, **mark})["samples"]

    def lengths(x: torch.Tensor) -> torch.Tensor:
        return (x if version == 1 else from_embedding(x)).norm(dim=1)

    torch.testing.assert_close(lengths(found), (lengths(one) + lengths(other)) / 2)


def test_a_noise_mask_goes_on_with_its_latent() -> None:
    mask = torch.ones(1, 8, 8)
    masked = {**empty(), "noise_mask": mask}
    made = (
        mixed(masked, empty()),
        call("WuerstchenCollage", below=masked, above=empty(), mask=mask),
        call("WuerstchenUpscaleStageC", samples=masked, width=512, height=512),
    )
    assert all(latent["noise_mask"] is mask for latent in made)


def test_a_text_is_encoded_again_when_its_embedding_comes(tmp_path: Path) -> None:
    node = NODE_CLASS_MAPPINGS["WuerstchenTextEncode"]
    batch = NODE_CLASS_MAPPINGS["WuerstchenTextEncodeBatch"]
    text = "a star, embedding:gold"

    class Elsewhere(PlainSurroundings):
        def models_dirs(self, kind: str) -> list[Path]:
            return [tmp_path]

    with use(Elsewhere()):

        def stamps() -> tuple[str, str]:
            return node.IS_CHANGED(text=text), batch.IS_CHANGED(texts=[text])

        before, other = stamps(), node.IS_CHANGED(text="a star")
        (tmp_path / "embeddings").mkdir()
        save_file({"emb_params": torch.ones(1, 192)}, tmp_path / "embeddings" / "gold.safetensors")
        after = stamps()
        assert all(a != b for a, b in zip(before, after, strict=True))
        assert node.IS_CHANGED(text="a star") == other and node.IS_CHANGED() == other
