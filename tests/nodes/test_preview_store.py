"""Learned previews in the data folder, and learning in real runs of the demo checkpoint."""

import json
import logging
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from comfyui_wuerstchen.host.executor import Executor
from comfyui_wuerstchen.host.folders import Folders
from comfyui_wuerstchen.host.registry import default_nodes
from comfyui_wuerstchen.nodes.preview_store import PreviewStore
from comfyui_wuerstchen.wuerstchen_core.preview import read_fits

from ..paths import DEMO


def pair(seed: int = 0, channels: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(1, channels, 8, 8, generator=generator)
    return latents, torch.rand(1, 3, 32, 32, generator=generator)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def test_what_was_learned_is_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "previews.json"
    store = PreviewStore(path)
    assert store.lookup("b") is None and not path.exists()
    store.learn("b", *pair(1))
    store.learn("c", *pair(2, channels=16))
    again = PreviewStore(path)
    for key in ("b", "c"):
        before, after = store.lookup(key), again.lookup(key)
        assert before is not None and after is not None
        assert np.array_equal(before.weight, after.weight)
        assert np.array_equal(before.bias, after.bias)
    again.learn("b", *pair(3))
    assert read_fits(path)["b"].gram[-1, -1] == pytest.approx(1.98)  # two pictures, one older


def test_a_broken_file_is_learned_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "previews.json"
    PreviewStore(path).learn("b", *pair())
    path.write_bytes(path.read_bytes()[:-40])
    store = PreviewStore(path)
    assert store.lookup("b") is None
    assert len(warnings(caplog)) == 1 and str(tmp_path) not in warnings(caplog)[0]
    store.learn("b", *pair())
    assert PreviewStore(path).lookup("b") is not None


def test_other_channels_start_anew(tmp_path: Path) -> None:
    store = PreviewStore(tmp_path / "previews.json")
    store.learn("b", *pair(channels=16))
    store.learn("b", *pair(channels=4))
    found = store.lookup("b")
    assert found is not None and found.weight.shape == (4, 3)


def test_a_folder_that_cannot_be_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    store = PreviewStore(tmp_path / "file" / "previews.json")
    for seed in range(3):
        store.learn("b", *pair(seed))
    assert store.lookup("b") is not None
    assert len(warnings(caplog)) == 1


def test_many_threads_lose_nothing(tmp_path: Path) -> None:
    store = PreviewStore(tmp_path / "previews.json")
    start = threading.Barrier(8)

    def work(number: int) -> None:
        start.wait()
        for _ in range(5):
            store.learn(str(number % 2), *pair(number))
            assert store.lookup(str(number % 2)) is not None

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pictures = sum(0.98**age for age in range(20))
    for fit in read_fits(tmp_path / "previews.json").values():
        assert fit.gram[-1, -1] == pytest.approx(pictures)


class Studio:
    """Text to picture by the demo checkpoint without its own maps, as the server runs it."""

    def __init__(self, folder: Path, previews: PreviewStore | None) -> None:
        weights = folder / "models" / "plain"
        if not weights.exists():
            weights.mkdir(parents=True)
            for part in DEMO.iterdir():
                if part.is_dir():
                    (weights / part.name).symlink_to(part)
        self.folders = Folders(
            folder / "input", folder / "output", folder / "temp", models=(weights.parent,)
        )
        self.executor = Executor(default_nodes().classes, self.folders, previews=previews)

    def run(self, text: str, seed: int = 0, batch: int = 1) -> tuple[dict[str, Any], np.ndarray]:
        """(the last preview by node, the first picture in [0, 1])."""
        shown: dict[str, Any] = {}

        def on_event(kind: str, data: dict[str, Any]) -> None:
            if kind == "preview":
                shown[data["node_id"]] = data["image"]

        result = self.executor.run(graph(text, seed, batch), ["save"], on_event=on_event)
        assert result.status == "success", result.failure
        saved = result.outputs["save"]["images"][0]
        with Image.open(self.folders.output / saved["subfolder"] / saved["filename"]) as picture:
            return shown, np.asarray(picture) / 255


def graph(text: str, seed: int, batch: int) -> dict[str, Any]:
    shared = {"seed": seed, "sampler_name": "ddpm", "denoise": 1.0}
    short = {
        "load": ("WuerstchenLoadPipeline", {"folder": "plain", "dtype": "float32"}),
        "text": ("WuerstchenTextEncode", {"text_encoder": ["load", 3], "text": text}),
        "none": ("WuerstchenTextEncode", {"text_encoder": ["load", 3], "text": ""}),
        "size": ("WuerstchenEmptyLatent", {"width": 256, "height": 256, "batch_size": batch}),
        "c": (
            "WuerstchenStageCSampler",
            {"stage_c": ["load", 0], "positive": ["text", 0], "negative": ["none", 0],
             "latent_image": ["size", 0], "steps": 16, "cfg": 2.0, "scheduler": "default",
             **shared},
        ),
        "b": (
            "WuerstchenStageBSampler",
            {"stage_b": ["load", 1], "stage_c_latent": ["c", 0], "steps": 6, "cfg": 0.0,
             "scheduler": "uniform", **shared},
        ),
        "decode": ("WuerstchenStageADecode", {"stage_a": ["load", 2], "samples": ["b", 0]}),
        "save": ("SaveImage", {"images": ["decode", 0], "filename_prefix": "picture"}),
    }  # fmt: skip
    return {key: {"class_type": name, "inputs": inputs} for key, (name, inputs) in short.items()}


def distance(preview: Image.Image, picture: np.ndarray) -> float:
    """Between their median colours, those of the background, in [0, 1]."""
    shown = np.asarray(preview).reshape(-1, 3) / 255
    return float(np.abs(np.median(shown, axis=0) - np.median(picture.reshape(-1, 3), axis=0)).max())


def test_previews_get_right_by_themselves(tmp_path: Path) -> None:
    path = tmp_path / "previews.json"
    studio = Studio(tmp_path, PreviewStore(path))
    first, picture = studio.run("a large red star on a green background", batch=4)
    # Something to look at before anything is known, but in no colours.
    assert distance(first["c"], picture) > 0.3 and distance(first["b"], picture) > 0.3
    texts = [
        f"a large {shape} on a {ground} background"
        for shape, ground in (
            ("red star", "blue"), ("yellow ring", "green"), ("blue heart", "white"),
            ("white circle", "red"), ("green square", "yellow"), ("blue star", "purple"),
        )
    ]  # fmt: skip
    for text in texts:
        studio.run(text, batch=4)
    later = Studio(tmp_path, PreviewStore(path))  # after a restart
    for text in texts[::2]:
        shown, picture = later.run(text, seed=50)
        assert distance(shown["c"], picture) < 0.25
        assert distance(shown["b"], picture) < 0.1


def test_the_same_pictures_with_and_without_previews(tmp_path: Path) -> None:
    store = PreviewStore(tmp_path / "previews.json")
    shown, picture = Studio(tmp_path, store).run("a red star")
    nothing, quiet = Studio(tmp_path, None).run("a red star")
    assert set(shown) == {"c", "b"} and not nothing
    assert np.array_equal(picture, quiet)


def test_the_file_is_plain_json(tmp_path: Path) -> None:
    store = PreviewStore(tmp_path / "previews.json")
    store.learn("b", *pair())
    assert json.loads((tmp_path / "previews.json").read_text("utf-8")).keys() == {"b"}
