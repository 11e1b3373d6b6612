"""While our nodes run in ComfyUI: progress, previews, cancel, and running out of memory."""

from __future__ import annotations

import io
import json
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from ..paths import DEMO
from ..server.conftest import Listener, Prompt
from .conftest import Comfy, Process
from .graphs import text_to_image

pytestmark = [pytest.mark.comfyui, pytest.mark.slow]

METADATA_PREVIEW = 4
SHOWN = (512, 512)  # what --preview-size makes of a square picture


def steps_of(listener: Listener) -> dict[str, list[tuple[float, float]]]:
    """(value, max) of each node's progress, in the order they came."""
    seen: dict[str, list[tuple[float, float]]] = {}
    for message in listener.heard:
        if message["type"] == "progress":
            data = message["data"]
            seen.setdefault(data["node"], []).append((data["value"], data["max"]))
    return seen


def previews_of(listener: Listener) -> dict[str, list[Image.Image]]:
    found: dict[str, list[Image.Image]] = {}
    for frame in listener.pictures:
        kind, length = struct.unpack(">II", frame[:8])
        if kind == METADATA_PREVIEW:
            node = json.loads(frame[8 : 8 + length])["node_id"]
            found.setdefault(node, []).append(Image.open(io.BytesIO(frame[8 + length :])))
    return found


def unseen(seed: int, steps: int = 4) -> Prompt:
    """A prompt that no other test ran, so that nothing of it is cached."""
    return text_to_image(steps=steps, seed=seed)


async def test_each_stage_has_a_bar_of_its_own(comfyui: Comfy) -> None:
    prompt = unseen(101)
    prompt["B"]["inputs"]["steps"] = 7
    outcome = await comfyui.run(prompt)
    seen = steps_of(outcome.listener)
    assert set(seen) == {"C", "B", "A"}
    for node, steps in (("C", 4), ("B", 7)):
        assert {total for _, total in seen[node]} == {steps}
        assert seen[node][-1] == (steps, steps)
        values = [value for value, _ in seen[node]]
        assert values == sorted(values)


async def test_a_list_of_calls_fills_the_bar_for_each(comfyui: Comfy) -> None:
    """Rebatch Latents makes a list, so the sampler is called once for each."""
    prompt = unseen(102)
    prompt["size"]["inputs"]["batch_size"] = 2
    rebatch = {"latents": ["size", 0], "batch_size": 1}
    prompt["list"] = {"class_type": "RebatchLatents", "inputs": rebatch}
    prompt["C"]["inputs"]["latent_image"] = ["list", 0]
    outcome = await comfyui.run(prompt)
    assert outcome.error is None
    seen = steps_of(outcome.listener)
    assert [step for step in seen["C"] if step == (4, 4)] == [(4, 4)] * 2
    assert len(outcome.outputs["save"]["images"]) == 2


async def test_no_previews_unless_asked_for(comfyui: Comfy) -> None:
    outcome = await comfyui.run(unseen(103))
    assert previews_of(outcome.listener) == {}


@pytest.mark.parametrize(("method", "seed"), [("auto", 104), ("latent2rgb", 105), ("taesd", 106)])
async def test_previews_in_the_way_the_prompt_chose(comfyui: Comfy, method: str, seed: int) -> None:
    outcome = await comfyui.run(unseen(seed), preview_method=method)
    shown = previews_of(outcome.listener)
    assert set(shown) == {"C", "B"}
    assert all(one.size == SHOWN for ones in shown.values() for one in ones)
    later = await comfyui.run(unseen(seed + 50))
    assert previews_of(later.listener) == {}  # the choice held for that prompt alone


async def test_what_pictures_teach_lies_in_the_user_folder(comfyui: Comfy, untaught: str) -> None:
    """The demo brings its own maps; weights without them learn, and remember."""
    prompt = unseen(107)
    prompt["load"]["inputs"]["folder"] = untaught
    outcome = await comfyui.run(prompt, preview_method="auto")
    assert outcome.error is None and set(previews_of(outcome.listener)) == {"C", "B"}
    learned = comfyui.process.base / "user" / "__wuerstchen" / "previews.json"
    assert len(json.loads(learned.read_text(encoding="utf-8"))) == 2
    async with comfyui.session.get(
        f"{comfyui.url}/userdata/..%2F__wuerstchen%2Fpreviews.json"
    ) as a:
        assert a.status in (403, 404)


async def test_cancel(comfyui: Comfy) -> None:
    prompt = text_to_image(width=4096, height=4096, steps=1, seed=108)
    listener = await comfyui.listen()
    prompt_id = await comfyui.submit(prompt)
    await listener.until("executing", node="C")
    status, _ = await comfyui.post("/interrupt")
    assert status == 200
    data = await listener.until("execution_interrupted", prompt_id=prompt_id)
    assert data["node_id"] == "C" and data["node_type"] == "WuerstchenStageCSampler"
    assert steps_of(listener) == {}
    await listener.until("status")
    await listener.socket.close()
    outcome = await comfyui.run(unseen(109))  # and the next run goes as if nothing had been
    assert outcome.error is None


@pytest.mark.skipif(sys.platform != "linux", reason="the memory of a running process is limited")
async def test_out_of_memory_says_what_helps(comfyui: Comfy) -> None:
    with little_memory(comfyui.process.pid):
        outcome = await comfyui.run(text_to_image(width=4096, height=4096, steps=1, seed=110))
    assert outcome.error is not None and outcome.error["node_id"] in "CB"
    assert "batch_size" in outcome.error["exception_message"]
    assert outcome.error["exception_type"].endswith("OutOfMemoryError")
    assert "unloading all loaded models" in comfyui.process.log.read_text("utf-8")
    outcome = await comfyui.run(unseen(111))  # and the next run goes as if nothing had been
    assert outcome.error is None


@contextmanager
def little_memory(pid: int) -> Iterator[None]:
    """Leaves the process a quarter of a GiB more than it has now."""
    import resource

    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + 2**28
    before = resource.prlimit(pid, resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_AS, before)


@pytest.fixture
def untaught(process: Process) -> str:
    """The demo as a folder without the preview maps that it ships."""
    folder = process.base / "models" / "wuerstchen" / "untaught"
    folder.mkdir(parents=True)
    for part in ("wuerstchen", "wuerstchen-prior", "EfficientNetEncoder"):
        (folder / part).symlink_to(DEMO / part, target_is_directory=True)
    return folder.name
