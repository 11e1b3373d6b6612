"""Each LATENT, CONDITIONING, IMAGE and MASK of ours through ComfyUI's own nodes and back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from ..server.conftest import Prompt
from .conftest import Comfy
from .graphs import text_to_image
from .interop_cases import CONDITIONINGS, IMAGES, STAGE_B, STAGE_C, Case, X, Y

pytestmark = [pytest.mark.comfyui, pytest.mark.slow]


def ids(cases: Iterable[Case]) -> list[str]:
    return [case.node for case in cases]


def insert(prompt: Prompt, case: Case, value: list[Any], other: list[Any], *readers: str) -> None:
    """Puts the case's node behind `value`: these `node.input`s read its output from now on."""
    wires = {X: value, Y: other}
    inputs = {
        name: wires.get(given, given) if isinstance(given, str) else given
        for name, given in case.inputs.items()
    }
    prompt["stock"] = {"class_type": case.node, "inputs": inputs}
    for reader in readers:
        node, _, name = reader.partition(".")
        prompt[node]["inputs"][name] = ["stock", 0]


def again(prompt: Prompt, node: str, **changed: Any) -> list[Any]:
    """A wire from a copy of a node with other inputs."""
    inputs = {**prompt[node]["inputs"], **changed}
    prompt[f"{node}2"] = {"class_type": prompt[node]["class_type"], "inputs": inputs}
    return [f"{node}2", 0]


def check_pictures(pictures: list[np.ndarray], case: Case) -> None:
    assert [one.shape for one in pictures] == [(case.size[1], case.size[0], 3)] * case.count
    assert all(one.std() > 2 for one in pictures)  # neither black (not finite) nor empty


@pytest.mark.parametrize("case", STAGE_C, ids=ids(STAGE_C))
async def test_stage_c_latents(comfyui: Comfy, case: Case) -> None:
    prompt = text_to_image()
    insert(prompt, case, ["C", 0], again(prompt, "C", seed=9), "B.stage_c_latent")
    check_pictures(await comfyui.pictures(prompt), case)


@pytest.mark.parametrize("case", STAGE_B, ids=ids(STAGE_B))
async def test_stage_b_latents(comfyui: Comfy, case: Case) -> None:
    prompt = text_to_image()
    insert(prompt, case, ["B", 0], again(prompt, "B", seed=9), "A.samples")
    check_pictures(await comfyui.pictures(prompt), case)


@pytest.mark.parametrize("case", CONDITIONINGS, ids=ids(CONDITIONINGS))
async def test_conditionings(comfyui: Comfy, case: Case) -> None:
    prompt = text_to_image()
    insert(prompt, case, ["text", 0], again(prompt, "text", text="a blue ring"), "C.positive")
    check_pictures(await comfyui.pictures(prompt), case)


@pytest.mark.parametrize("case", IMAGES, ids=ids(IMAGES))
async def test_pictures_to_stock_nodes_and_back(comfyui: Comfy, case: Case) -> None:
    """From our decoder through the stock node into our encoder and decoder."""
    prompt = text_to_image()
    other = again(prompt, "A", samples=again(prompt, "B", seed=9))
    insert(prompt, case, ["A", 0], other)
    prompt["encode"] = {
        "class_type": "WuerstchenStageAEncode",
        "inputs": {"stage_a": ["load", 2], "pixels": ["stock", 0]},
    }
    prompt["back"] = {
        "class_type": "WuerstchenStageADecode",
        "inputs": {"stage_a": ["load", 2], "samples": ["encode", 0]},
    }
    prompt["save"]["inputs"]["images"] = ["back", 0]
    check_pictures(await comfyui.pictures(prompt), case)


async def test_a_saved_latent_comes_back_the_same(comfyui: Comfy) -> None:
    prompt = text_to_image()
    direct = (await comfyui.pictures(prompt))[0]
    prompt["keep"] = {
        "class_type": "SaveLatent",
        "inputs": {"samples": ["C", 0], "filename_prefix": "kept"},
    }
    outcome = await comfyui.run(prompt)
    saved = outcome.outputs["keep"]["latents"][0]
    output = comfyui.process.base / "output" / saved["subfolder"] / saved["filename"]
    (comfyui.process.base / "input" / "kept.latent").write_bytes(output.read_bytes())
    later = text_to_image()
    del later["C"], later["size"], later["text"], later["empty"]
    later["back"] = {"class_type": "LoadLatent", "inputs": {"latent": "kept.latent"}}
    later["B"]["inputs"]["stage_c_latent"] = ["back", 0]
    assert np.array_equal((await comfyui.pictures(later))[0], direct)


async def test_a_picture_of_a_batch_is_made_alone(comfyui: Comfy) -> None:
    """LatentFromBatch before sampling keeps the batch index, so the seed."""
    batch = text_to_image(batch_size=3)
    pictures = await comfyui.pictures(batch)
    case = Case("LatentFromBatch", {"samples": X, "batch_index": 1, "length": 1})
    insert(batch, case, ["size", 0], ["size", 0], "C.latent_image")
    alone = await comfyui.pictures(batch)
    assert np.abs(alone[0].astype(int) - pictures[1]).max() <= 1


async def test_flipping_twice_changes_nothing(comfyui: Comfy) -> None:
    prompt = text_to_image()
    direct = await comfyui.pictures(prompt)
    flip = Case("LatentFlip", {"samples": X, "flip_method": "x-axis: vertically"})
    insert(prompt, flip, ["C", 0], ["C", 0])
    back = again(prompt, "stock", samples=["stock", 0])
    prompt["B"]["inputs"]["stage_c_latent"] = back
    assert np.array_equal((await comfyui.pictures(prompt))[0], direct[0])


async def test_stock_empty_latents_that_fit(comfyui: Comfy) -> None:
    """Stable Cascade's has the same channels, and its size in cells suits at multiples of 126."""
    prompt = text_to_image()
    size = {"width": 256, "height": 256, "compression": 42, "batch_size": 1}
    prompt["size"] = {"class_type": "StableCascade_EmptyLatentImage", "inputs": size}
    assert (await comfyui.pictures(prompt))[0].shape == (256, 256, 3)


async def test_masks_of_our_pictures(comfyui: Comfy) -> None:
    """IMAGE -> MASK -> IMAGE, and a mask that joins two latents of ours."""
    prompt = text_to_image()
    prompt["mask"] = {"class_type": "ImageToMask", "inputs": {"image": ["A", 0], "channel": "red"}}
    prompt["grey"] = {"class_type": "MaskToImage", "inputs": {"mask": ["mask", 0]}}
    prompt["save2"] = {
        "class_type": "SaveImage",
        "inputs": {"images": ["grey", 0], "filename_prefix": "grey"},
    }
    picture, grey = await comfyui.pictures(prompt)
    assert np.array_equal(grey, np.repeat(picture[..., :1], 3, axis=2))

    joined = text_to_image()
    other = again(joined, "B", seed=9)
    joined["mask"] = {
        "class_type": "SolidMask",
        "inputs": {"value": 0.0, "width": 128, "height": 128},
    }
    case = Case(
        "LatentCompositeMasked",
        {
            "destination": X,
            "source": Y,
            "x": 0,
            "y": 0,
            "resize_source": False,
            "mask": ["mask", 0],
        },
    )
    insert(joined, case, ["B", 0], other, "A.samples")
    assert np.array_equal((await comfyui.pictures(joined))[0], picture)


REFUSED = {
    "another model's latent": (
        Case("EmptyLatentImage", {"width": 128, "height": 128, "batch_size": 1}),
        ("size", "C.latent_image"),
        "Würstchen Empty Latent",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_does_not_fit_is_said(comfyui: Comfy, name: str) -> None:
    case, (source, reader), words = REFUSED[name]
    prompt = text_to_image()
    prompt["mask"] = {
        "class_type": "SolidMask",
        "inputs": {"value": 1.0, "width": 128, "height": 128},
    }
    insert(prompt, case, [source, 0], [source, 0], reader)
    outcome = await comfyui.run(prompt)
    assert outcome.error is not None and outcome.error["node_id"] == "C"
    assert words in outcome.error["exception_message"]
    assert outcome.error["exception_type"].endswith("WireError")
