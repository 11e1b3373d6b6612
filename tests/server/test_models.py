"""The model library: what weights there are, their pictures, and what they say of themselves."""

import io
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from comfyui_wuerstchen.host.server.assemble import ServeSettings

from .conftest import Running, serving

FOLDER = "/experiment/models/wuerstchen"
VQGAN = "wuerstchen-demo/wuerstchen/vqgan/diffusion_pytorch_model.safetensors"


def weights(path: Path, **about: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"a": torch.zeros(2)}, path, metadata=about or None)


@pytest.fixture
async def library(settings: ServeSettings, tmp_path: Path) -> AsyncIterator[Running]:
    """Weights in the data folder, and in a folder that is linked to from a second one."""
    own, other = settings.data / "models", tmp_path / "other"
    weights(own / "fine" / "one.safetensors", title="One", format="pt")
    weights(own / "plain.safetensors")
    (own / "two.pt").write_bytes(b"pickle")
    (own / "notes.txt").write_text("no weights")
    weights(own / ".cache" / "three.safetensors")
    weights(tmp_path / "disk" / "linked.safetensors", title="Linked")
    other.mkdir()
    (other / "more").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "around").symlink_to(other)
    async with serving(replace(settings, models=(other,))) as started:
        yield started


async def test_the_demo_is_there(real: Running) -> None:
    assert await real.get("/models") == ["wuerstchen"]
    (folder,) = await real.get("/api/experiment/models")
    assert folder["name"] == "wuerstchen" and ".safetensors" in folder["extensions"]
    assert folder["folders"] == ["models"]
    found = {one["name"]: one for one in await real.get(f"/api{FOLDER}")}
    assert len(found) == 7  # six networks and a LoRA
    assert found[VQGAN].keys() == {"name", "pathIndex", "modified", "created", "size"}
    assert found[VQGAN]["size"] > 10_000
    assert await real.get("/models/wuerstchen") == sorted(found)
    assert await real.get(f"/view_metadata/wuerstchen?filename={VQGAN}") == {"format": "pt"}


async def test_embeddings_by_the_names_that_prompts_call(
    real: Running, settings: ServeSettings
) -> None:
    assert await real.get("/api/embeddings") == []
    weights(settings.data / "models" / "embeddings" / "style" / "one.safetensors")
    assert await real.get("/api/embeddings") == ["style/one"]


async def test_weights_of_all_folders(library: Running) -> None:
    (about,) = await library.get("/experiment/models")
    assert about["folders"] == ["other", "models", "models"]
    found = await library.get(FOLDER)
    own = [(one["pathIndex"], one["name"]) for one in found if one["pathIndex"] < 2]
    assert own == [
        (0, "more/linked.safetensors"),
        (1, "plain.safetensors"),
        (1, "two.pt"),
        (1, "fine/one.safetensors"),
    ]


async def test_metadata(library: Running) -> None:
    async def about(name: str) -> object:
        return await library.get(f"/view_metadata/wuerstchen?filename={name}")

    assert await about("fine/one.safetensors") == {"title": "One", "format": "pt"}
    assert await about("fine%5Cone.safetensors") == {"title": "One", "format": "pt"}
    assert await about("more/linked.safetensors") == {"title": "Linked"}
    assert await about("plain.safetensors") == {}


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/models/checkpoints", 404),
        ("/experiment/models/checkpoints", 404),
        ("/view_metadata/checkpoints?filename=plain.safetensors", 404),
        ("/view_metadata/wuerstchen", 404),
        ("/view_metadata/wuerstchen?filename=two.pt", 404),
        ("/view_metadata/wuerstchen?filename=none.safetensors", 404),
        ("/view_metadata/wuerstchen?filename=.cache/three.safetensors", 404),
        ("/view_metadata/wuerstchen?filename=broken.safetensors", 404),
        ("/view_metadata/wuerstchen?filename=list.safetensors", 404),
        ("/view_metadata/wuerstchen?filename=huge.safetensors", 413),
        ("/experiment/models/preview/wuerstchen/1/plain.webp", 404),
        ("/experiment/models/preview/wuerstchen/1/", 404),
        ("/experiment/models/preview/wuerstchen/9/plain.webp", 404),
        ("/experiment/models/preview/wuerstchen/x/plain.webp", 404),
        ("/experiment/models/preview/checkpoints/1/plain.webp", 404),
    ],
)
async def test_what_is_not_there(library: Running, path: str, status: int) -> None:
    own = library.host.folders.models[1]
    (own / "broken.safetensors").write_bytes(b"\x05\0\0\0\0\0\0\0{{{{{")
    (own / "list.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0[]")
    (own / "huge.safetensors").write_bytes(b"\xff" * 64)
    assert (await library.ask("GET", path))[0] == status


async def test_pictures_of_weights(library: Running) -> None:
    own = library.host.folders.models[1]
    Image.new("RGB", (4, 4), "red").save(own / "plain.png")
    Image.new("RGB", (5, 5), "red").save(own / "fine" / "one.preview.jpg")
    for path, size in (("1/plain.webp", (4, 4)), ("1/fine/one.webp", (5, 5))):
        url = f"{library.url}/api/experiment/models/preview/wuerstchen/{path}"
        async with library.session.get(url) as answer:
            assert (answer.status, answer.content_type) == (200, "image/webp")
            assert Image.open(io.BytesIO(await answer.read())).size == size
