"""Names of files that arrive in a graph: refused when it is queued, and again when it runs."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from comfyui_wuerstchen.host.executor import Executor
from comfyui_wuerstchen.host.folders import Folders
from comfyui_wuerstchen.host.registry import default_nodes

from ..server.conftest import Prompt, Running, graph, real, settings  # noqa: F401
from .conftest import SECRET, SECRETS, TELLTALES, link_to_secrets

# Nodes that read a file, the input that names it, and an output node that shows what came out.
PICTURES = {
    "LoadImage": ("image", ("PreviewImage", {"images": ["1", 0]})),
    "LoadImageMask": ("image", ("PreviewAny", {"source": ["1", 0]})),
    "LoadLatent": ("latent", ("SaveLatent", {"samples": ["1", 0], "filename_prefix": "x"})),
}
WEIGHTS = {
    "WuerstchenLoadPipeline": ("folder", ("PreviewAny", {"source": ["1", 2]})),
    "WuerstchenLoadStageC": ("name", ("PreviewAny", {"source": ["1", 0]})),
    "WuerstchenLoadStageB": ("name", ("PreviewAny", {"source": ["1", 0]})),
    "WuerstchenLoadStageA": ("name", ("PreviewAny", {"source": ["1", 0]})),
    "WuerstchenLoadTextEncoder": ("name", ("PreviewAny", {"source": ["1", 0]})),
    "WuerstchenLoadImageEncoder": ("name", ("PreviewAny", {"source": ["1", 0]})),
}
READERS = {**PICTURES, **WEIGHTS}
OTHERS = {"dtype": "auto", "channel": "alpha", "role": "prior"}
PREFIXES = ("../evil", "/evil", "a/../../evil", "..\\evil", "C:\\evil", "way-out/evil")


def names(node: str, data: Path) -> list[str]:
    found = ["/etc/passwd", "..", "../..", ".", "", "C:\\x.png", "\\\\server\\x.png", "a\0b"]
    for name in SECRETS:
        found += [f"../{name}", f"..\\{name}", f"x/../../{name}", f"{data}/{name}"]
        found += [f"../{name} [output]", f"{name} [..]", f"../../{name}"]
        # Weights are different: people link folders of them to other disks.
        found += [f"link-{name}", f"way-out/{name}"] if node in PICTURES else []
    return [*found, "../wuerstchen-demo", "wuerstchen-demo/../../..", "../user", str(data)]


def reading(node: str, name: str) -> Prompt:
    key, sink = READERS[node]
    return graph(n1=(node, {key: name, **OTHERS}), n2=sink)


def hide_secrets(data: Path) -> None:
    for folder in (data, data.parent):
        for name in SECRETS:
            (folder / name).write_text(SECRET)
    link_to_secrets(data)


@pytest.fixture
def running(real: Running) -> Running:  # noqa: F811
    hide_secrets(real.host.folders.output.parent)
    return real


def check(told: Any, data: Path) -> None:
    text = json.dumps(told)
    for word in (*TELLTALES, str(data.parent)):
        assert word not in text, text[:1000]


@pytest.mark.parametrize("node", READERS)
async def test_queueing_names_that_lead_out(running: Running, node: str) -> None:
    data = running.host.folders.output.parent
    for name in names(node, data):
        status, answer = await running.submit(reading(node, name))
        assert status == 400, (name, answer)
        kinds = {error["type"] for error in answer["node_errors"]["1"]["errors"]}
        assert kinds <= {"custom_validation_failed", "value_not_in_list"}, (name, kinds)
        if str(data) not in name:  # else the answer repeats what was sent
            check(answer, data)
    assert await running.get("/history") == {}


@pytest.mark.parametrize("node", READERS)
def test_running_names_that_lead_out(tmp_path: Path, node: str) -> None:
    """What was fine when it was queued may be something else by now."""
    data = tmp_path / "data"
    (data / "user").mkdir(parents=True)
    hide_secrets(data)
    folders = Folders(
        data / "input", data / "output", data / "user" / "temp", models=(data / "models",)
    )
    executor = Executor(default_nodes().classes, folders)
    for name in names(node, data):
        told: list[Any] = []
        result = executor.run(reading(node, name), ["2"], on_event=partial(_keep, told))
        assert (result.status, result.outputs) == ("error", {}), name
        assert told[-1][0] == "execution_error"
        assert SECRET not in json.dumps(told)


def _keep(told: list[Any], kind: str, data: Any) -> None:
    told.append((kind, data))


async def test_an_error_while_running_tells_no_places(running: Running) -> None:
    models = running.host.folders.models[-1]
    (models / "broken.safetensors").write_bytes(b"no weights")
    listener = await running.listen()
    prompt = graph(
        n1=("WuerstchenLoadStageA", {"name": "broken.safetensors", "dtype": "auto"}),
        n2=("EmptyImage", {"width": 64, "height": 64, "batch_size": 1, "color": 0}),
        n3=("WuerstchenStageAEncode", {"stage_a": ["1", 0], "pixels": ["2", 0]}),
        n4=("PreviewAny", {"source": ["3", 0]}),
    )
    status, answer = await running.submit(prompt, client_id="tester")
    assert status == 200, answer
    error = await listener.until("execution_error")
    assert "broken.safetensors" in error["exception_message"]
    await listener.until_done(answer["prompt_id"])
    job = await running.get(f"/jobs/{answer['prompt_id']}")
    history = await running.get("/history")
    log = await running.get("/internal/logs")
    check([listener.heard, job, history, log], models.parent)


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_saving_outside(running: Running, prefix: str) -> None:
    folders = running.host.folders
    before = sorted(str(path) for path in folders.output.parent.parent.rglob("*"))
    listener = await running.listen()
    prompt = graph(
        n1=("EmptyImage", {"width": 8, "height": 8, "batch_size": 1, "color": 0}),
        n2=("SaveImage", {"images": ["1", 0], "filename_prefix": prefix}),
    )
    status, answer = await running.submit(prompt, client_id="tester")
    assert status == 200, answer
    error = await listener.until("execution_error")
    await listener.until_done(answer["prompt_id"])
    assert error["node_id"] == "2"
    job = await running.get(f"/jobs/{answer['prompt_id']}")
    history = await running.get(f"/history/{answer['prompt_id']}")
    check([listener.heard, job, history], folders.output.parent)
    new = {str(p) for p in folders.output.parent.parent.rglob("*")} - set(before)
    assert {Path(one).name.split(".db")[0] for one in new} <= {"wuerstchen"}
