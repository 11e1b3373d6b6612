"""Previews of the samplers on the demo checkpoint, and what is learned from finished pictures."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from comfyui_wuerstchen.nodes import NODE_CLASS_MAPPINGS, previews, runtime
from comfyui_wuerstchen.wuerstchen_core.preview import LinearMap, cells_of, key_of
from comfyui_wuerstchen.wuerstchen_core.sampling import StepInfo

from ..paths import DEMO

SAMPLING = {"seed": 1, "sampler_name": "ddpm", "denoise": 1.0}
STAGE_C = {**SAMPLING, "steps": 12, "cfg": 2.0, "scheduler": "default"}
STAGE_B = {**SAMPLING, "steps": 5, "cfg": 0.0, "scheduler": "uniform"}


class Host(runtime.PlainSurroundings):
    """Looks at previews and keeps what is learned."""

    def __init__(self, maps: runtime.PreviewMaps | None, models: Path | None = None) -> None:
        self.previews = maps
        self.models = models
        self.seen: list[Image.Image | None] = []

    def models_dirs(self, kind: str) -> list[Path]:
        return [self.models] if self.models else []

    def progress(self, value: int, total: int, preview: Image.Image | None = None) -> None:
        self.seen.append(preview)


class Memory:
    """Maps that only say what they are asked for."""

    def __init__(self) -> None:
        self.learned: list[tuple[str, torch.Tensor, torch.Tensor]] = []

    def lookup(self, key: str) -> LinearMap | None:
        return None

    def learn(self, key: str, latents: torch.Tensor, pixels: torch.Tensor) -> None:
        self.learned.append((key, latents, pixels))


class Faulty:
    def lookup(self, key: str) -> LinearMap | None:
        return LinearMap(np.zeros((4, 7)), np.zeros(3)) if "stage_b" in key else None

    def learn(self, key: str, latents: torch.Tensor, pixels: torch.Tensor) -> None:
        raise RuntimeError("a mistake")


@pytest.fixture(scope="module")
def unknown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with the demo checkpoint as `plain`, without its preview maps."""
    folder = tmp_path_factory.mktemp("models") / "plain"
    folder.mkdir()
    for part in DEMO.iterdir():
        if part.is_dir():
            (folder / part.name).symlink_to(part)
    return folder.parent


def call(node_id: str, **inputs: Any) -> Any:
    node = NODE_CLASS_MAPPINGS[node_id]
    outputs = getattr(node(), node.FUNCTION)(**inputs)
    return outputs[0] if len(outputs) == 1 else outputs


class Graph:
    """Text to picture, stage by stage."""

    def __init__(self, folder: str) -> None:
        names = NODE_CLASS_MAPPINGS["WuerstchenLoadPipeline"].RETURN_NAMES
        loaded = call("WuerstchenLoadPipeline", folder=folder, dtype="float32")
        self.parts = dict(zip(names, loaded, strict=True))

    def stage_c(self, text: str, width: int = 256, height: int = 256, batch: int = 1) -> Any:
        encoder = self.parts["prior_text_encoder"]
        positive, negative = (
            call("WuerstchenTextEncode", text_encoder=encoder, text=t) for t in (text, "")
        )
        empty = call("WuerstchenEmptyLatent", width=width, height=height, batch_size=batch)
        return call(
            "WuerstchenStageCSampler", stage_c=self.parts["stage_c"], positive=positive,
            negative=negative, latent_image=empty, **STAGE_C,
        )  # fmt: skip

    def stage_b(self, latent: Any) -> Any:
        part = self.parts["stage_b"]
        return call("WuerstchenStageBSampler", stage_b=part, stage_c_latent=latent, **STAGE_B)

    def decode(self, latent: Any) -> torch.Tensor:
        return call("WuerstchenStageADecode", stage_a=self.parts["stage_a"], samples=latent)

    def key(self, part: str) -> str:
        return key_of(self.parts[part].get().config)


@pytest.fixture(scope="module")
def demo() -> Graph:
    return Graph("wuerstchen-demo")


@pytest.fixture(scope="module")
def bare(unknown: Path) -> Graph:
    with runtime.use(Host(None, unknown)):
        return Graph("plain")


def background(picture: Any) -> np.ndarray:
    """The median colour, in [0, 1]."""
    values = np.asarray(picture, dtype=np.float64)
    scale = 255 if isinstance(picture, Image.Image) else 1
    return np.median(values.reshape(-1, 3), axis=0) / scale


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


@pytest.mark.parametrize(
    "text", ["a large red star on a blue background", "a small blue ring on a yellow background"]
)
def test_the_demo_shows_its_colours_from_the_first_run(demo: Graph, text: str) -> None:
    memory = Memory()
    with runtime.use(host := Host(memory)):
        latent = demo.stage_c(text)
        last_of_c, host.seen = host.seen[-1], []
        latent_b = demo.stage_b(latent)
        last_of_b, image = host.seen[-1], demo.decode(latent_b)
    assert last_of_c is not None and last_of_b is not None
    assert np.abs(background(last_of_c) - background(image)).max() < 0.12
    assert np.abs(background(last_of_b) - background(image)).max() < 0.04
    difference = np.asarray(last_of_b, dtype=np.float64) / 255 - image[0].numpy()
    assert np.square(difference).mean() < 10**-2.2  # 22 dB
    # The checkpoint brings its maps: there is nothing to learn and nothing to carry along.
    assert not memory.learned


def test_a_preview_has_the_asked_shape(demo: Graph) -> None:
    with runtime.use(host := Host(Memory())):
        demo.stage_b(demo.stage_c("a red star", 200, 130))
    assert {shown.size for shown in host.seen if shown is not None} == {(256, 166)}
    assert host.seen[0] is not None and host.seen[-1] is not None


def test_previews_change_nothing(bare: Graph) -> None:
    def sample(maps: runtime.PreviewMaps | None) -> Iterator[torch.Tensor]:
        with runtime.use(Host(maps)):
            latent = bare.stage_c("a red star", 200, 130, batch=2)
            decoded = bare.stage_b(latent)
            yield from (latent["samples"], decoded["samples"], bare.decode(decoded))

    for quiet, shown in zip(sample(None), sample(Memory()), strict=True):
        assert torch.equal(quiet, shown)


def test_no_work_where_nobody_looks(bare: Graph) -> None:
    with runtime.use(host := Host(None)):
        latent = bare.stage_b(bare.stage_c("a red star"))
        assert previews.painter(bare.parts["stage_c"], latent) is None
        assert len(host.seen) == STAGE_C["steps"] + STAGE_B["steps"]
        bare.decode(latent)
    assert set(host.seen) == {None}
    assert latent.keys() == {"samples", "wuerstchen_size"}


def test_both_stages_learn_from_one_picture(bare: Graph) -> None:
    memory = Memory()
    with runtime.use(Host(memory)):
        latent_c = bare.stage_c("a red star", 200, 130, batch=2)
        latent_b = bare.stage_b(latent_c)
        image = bare.decode(latent_b)
    (key_b, seen_b, pixels), (key_c, seen_c, same) = memory.learned
    assert (key_b, key_c) == (bare.key("stage_b"), bare.key("stage_c"))
    assert torch.equal(seen_b, latent_b["samples"]) and torch.equal(seen_c, latent_c["samples"])
    assert pixels.shape == (2, 3, 256, 256) and same is pixels  # the canvas, before the cut
    assert torch.equal(pixels[..., 63:193, 28:228].movedim(1, -1), image)


# What stock nodes do to a latent: they copy the dict with all its keys and change the samples.
CHANGES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "blend": lambda x: 0.5 * x,
    "flip": lambda x: x.flip(-1),
    "batch": lambda x: torch.cat([x, x]),
    "one of a batch": lambda x: x[:1],
    "a corner": lambda x: x[..., : x.shape[-2] // 2, : x.shape[-1] // 2],
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_latent_that_was_changed_teaches_nothing(
    bare: Graph, change: Callable[[torch.Tensor], torch.Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    memory = Memory()
    with runtime.use(Host(memory)):
        latent_c = bare.stage_c("a red star", batch=2)
        latent_b = bare.stage_b(latent_c)
        bare.decode({**latent_b, "samples": change(latent_b["samples"])})
        assert not memory.learned
        changed = change(latent_c["samples"])
        if changed.shape[-1] % 3 == 0:
            bare.decode(bare.stage_b({**latent_c, "samples": changed}))
            assert [key for key, _, _ in memory.learned] == [bare.key("stage_b")]
    assert not messages(caplog)


def test_unknown_origins_are_no_matter(bare: Graph, caplog: pytest.LogCaptureFixture) -> None:
    memory = Memory()
    samples = torch.zeros(1, 4, 64, 64)
    with runtime.use(Host(memory)):
        for strange in (None, 5, "a word", {}, []):
            bare.decode({"samples": samples, previews.ORIGIN_KEY: strange})
    assert not memory.learned and not messages(caplog)


def test_mistakes_of_previews_do_not_end_a_run(
    bare: Graph, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Faulty):
        def lookup(self, key: str) -> LinearMap | None:
            raise RuntimeError("a mistake")

    with runtime.use(Host(Broken())):
        wanted = bare.decode(bare.stage_b(bare.stage_c("a red star")))
    assert len(messages(caplog)) == 3  # one for each node
    caplog.clear()
    with runtime.use(Host(Faulty())):
        assert torch.equal(bare.decode(bare.stage_b(bare.stage_c("a red star"))), wanted)
    # Stage C is drawn without a map; Stage B's first preview fails, and so does learning.
    assert len(messages(caplog)) == 2


def test_a_broken_file_of_maps_is_as_none(
    unknown: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    for part in (unknown / "plain").iterdir():
        (folder / part.name).symlink_to(part)
    (folder / "previews.json").write_text('{"stage', encoding="utf-8")
    memory = Memory()
    with runtime.use(host := Host(memory, tmp_path)):
        graph = Graph("broken")
        graph.decode(graph.stage_b(graph.stage_c("a red star")))
    assert host.seen[0] is not None and len(memory.learned) == 2
    assert all("previews.json" in message for message in messages(caplog))


def test_every_step_is_drawn() -> None:
    paint = previews.Painter(cells_of, None, None)
    x0 = torch.randn(2, 4, 32, 32)
    assert all(paint(StepInfo(i, 20, 1.0, 0.0, x0)) is not None for i in range(20))
