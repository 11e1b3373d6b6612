"""The switches of speed and memory as flags: each takes effect on the stages of a graph that says
nothing, and none on those that a Würstchen Optimize node speaks for."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from comfyui_wuerstchen.host.cli import main
from comfyui_wuerstchen.host.registry import Nodes, default_nodes
from comfyui_wuerstchen.host.server.assemble import ServeSettings
from comfyui_wuerstchen.nodes.parts import Part
from comfyui_wuerstchen.wuerstchen_core.compile import CompiledBlock
from comfyui_wuerstchen.wuerstchen_core.errors import WuerstchenError
from comfyui_wuerstchen.wuerstchen_core.optimize import Optimization

from ..server.conftest import serving

STEPS = 8
FLAGS = [
    *("--compile", "blocks"),
    *("--storage", "int8"),
    *("--residency", "one_stage"),
    *("--step-cache", "0.25"),
    *("--guidance-end", "0.5"),
]
SAID = Optimization("blocks", "int8", "one_stage", 0.25, 0.5)


class Watch:
    """Passes a stage on, and notes what runs."""

    CATEGORY = "Test"
    RETURN_TYPES = ("WUERSTCHEN_STAGE_C",)
    FUNCTION = "watch"
    seen: list[Part[Any]]
    batches: list[int]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"stage_c": ("WUERSTCHEN_STAGE_C", {})}}

    def watch(self, stage_c: Part[Any]) -> tuple[Part[Any]]:
        self.seen.append(stage_c)
        batches = self.batches
        stage_c.get().register_forward_hook(lambda _, inputs, out: batches.append(len(inputs[0])))
        return (stage_c,)


class End:
    CATEGORY = "Test"
    RETURN_TYPES = ()
    OUTPUT_NODE = True
    FUNCTION = "end"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"samples": ("LATENT", {})}}

    def end(self, samples: Any) -> tuple[()]:
        return ()


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> tuple[Nodes, type[Watch]]:
    watch = type("Watch", (Watch,), {"seen": [], "batches": []})
    nodes = default_nodes().with_pack("test", {"Watch": watch, "End": End}, {})
    monkeypatch.setattr("comfyui_wuerstchen.host.commands.run.default_nodes", lambda: nodes)
    return nodes, watch


def graph(optimize: dict[str, Any] | None = None) -> dict[str, Any]:
    """Text to Stage C latent on the demo checkpoint; `optimize` wires the node in."""

    def node(class_type: str, **inputs: Any) -> dict[str, Any]:
        return {"class_type": class_type, "inputs": inputs}

    sampling = {"seed": 1, "sampler_name": "ddpm", "scheduler": "default", "denoise": 1.0}
    nodes = {
        "load": node("WuerstchenLoadPipeline", folder="wuerstchen-demo", dtype="float32"),
        "watch": node("Watch", stage_c=["load", 0]),
        "yes": node("WuerstchenTextEncode", text_encoder=["load", 3], text="a red star"),
        "no": node("WuerstchenTextEncode", text_encoder=["load", 3], text=""),
        "size": node("WuerstchenEmptyLatent", width=256, height=256, batch_size=1),
        "sample": node(
            "WuerstchenStageCSampler",
            stage_c=["watch", 0],
            positive=["yes", 0],
            negative=["no", 0],
            latent_image=["size", 0],
            steps=STEPS,
            cfg=4.0,
            **sampling,
        ),
        "end": node("End", samples=["sample", 0]),
    }
    if optimize is not None:
        nodes["optimize"] = node("WuerstchenOptimize", stage_c=["load", 0], **optimize)
        nodes["watch"]["inputs"]["stage_c"] = ["optimize", 0]
    return nodes


def run(tmp_path: Path, prompt: dict[str, Any], *flags: str) -> int:
    path = tmp_path / "graph.json"
    path.write_text(json.dumps(prompt), encoding="utf-8")
    return main(["run", str(path), "--output-dir", str(tmp_path / "out"), *flags])


def test_without_flags_nothing_is_switched(watched: Any, tmp_path: Path) -> None:
    _, watch = watched
    assert run(tmp_path, graph()) == 0
    assert watch.seen[0].optimization == Optimization()
    assert watch.batches == [2] * STEPS


def test_run_takes_storage(watched: Any, tmp_path: Path) -> None:
    _, watch = watched
    assert run(tmp_path, graph()) == 0 and run(tmp_path, graph(), "--storage", "float8") == 0
    plain, small = (part.weights.nbytes for part in watch.seen)
    assert 0 < small < 0.4 * plain


def test_run_takes_residency(watched: Any, tmp_path: Path) -> None:
    _, watch = watched
    assert run(tmp_path, graph(), "--residency", "streamed") == 0
    assert watch.seen[0].get().offloaded
    assert watch.batches == [2] * STEPS


def test_run_takes_what_concerns_steps(watched: Any, tmp_path: Path) -> None:
    _, watch = watched
    assert run(tmp_path, graph(), "--guidance-end", "0.5") == 0
    assert watch.batches == [2] * 4 + [1] * 4
    watch.batches.clear()
    assert run(tmp_path, graph(), "--step-cache", "0.25") == 0
    assert 1 < len(watch.batches) < STEPS


@pytest.mark.slow
def test_run_compiles(watched: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _, watch = watched
    assert run(tmp_path, graph(), "--compile", "blocks") == 0
    assert any(isinstance(module, CompiledBlock) for module in watch.seen[0].get().modules())
    assert watch.batches == [2] * STEPS
    assert "uncompiled" not in caplog.text  # what it says when it falls back


def test_a_node_of_the_graph_wins(watched: Any, tmp_path: Path) -> None:
    _, watch = watched
    own = {"compile": "off", "storage": "as_loaded", "residency": "resident"}
    assert run(tmp_path, graph({**own, "step_cache": 0.0, "guidance_end": 0.75}), *FLAGS) == 0
    assert watch.seen[0].optimization == Optimization(guidance_end=0.75)
    assert watch.batches == [2] * 6 + [1] * 2


async def test_serve_runs_as_it_is_told(watched: Any, tmp_path: Path) -> None:
    nodes, watch = watched
    told = ServeSettings(
        host="127.0.0.1",
        port=0,
        data=tmp_path / "data",
        optimization=Optimization(storage="int8", residency="one_stage", guidance_end=0.5),
    )
    async with serving(told, nodes) as server:
        listener = await server.listen()
        status, answer = await server.submit(graph(), client_id="tester")
        assert status == 200, answer
        await listener.until_done(answer["prompt_id"])
    assert watch.seen[0].get().offloaded
    assert watch.seen[0].optimization == told.optimization
    assert watch.batches == [2] * 4 + [1] * 4


@pytest.fixture
def assembled(monkeypatch: pytest.MonkeyPatch) -> list[ServeSettings]:
    """What `wuerstchen serve` would have served with."""
    found: list[ServeSettings] = []

    @contextlib.contextmanager
    def assemble(settings: ServeSettings) -> Iterator[None]:
        found.append(settings)
        raise WuerstchenError("Not in this test.")
        yield

    monkeypatch.setattr("comfyui_wuerstchen.host.server.assemble.assemble", assemble)
    return found


def test_serve_reads_the_same_flags(assembled: list[ServeSettings], tmp_path: Path) -> None:
    arguments = ["serve", "--port", "0", "--data", str(tmp_path)]
    assert main([*arguments, *FLAGS]) == 2
    assert main(arguments) == 2
    assert [settings.optimization for settings in assembled] == [SAID, Optimization()]


@pytest.mark.parametrize("command", [["run", "graph.json"], ["serve", "--port", "0"]])
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--storage", "int4"], "invalid choice"),
        (["--step-cache", "2"], "step_cache is 2.0; 0 to 1 is expected."),
        (["--guidance-end", "half"], "invalid float"),
        (["--compile", "blocks", "--residency", "streamed"], "turn compile off"),
    ],
)
def test_flags_that_cannot_be(
    command: list[str], flags: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, *flags]) == 2
    assert words in capsys.readouterr().err
