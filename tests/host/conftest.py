"""Fixtures of the host's tests: toy nodes, a folder for everything, an executor."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from comfyui_wuerstchen.host.executor import Executor
from comfyui_wuerstchen.host.folders import Folders, HostSurroundings
from comfyui_wuerstchen.host.registry import Nodes
from comfyui_wuerstchen.nodes.runtime import use


def _load_toys() -> ModuleType:
    path = Path(__file__).with_name("toy_nodes.py")
    spec = importlib.util.spec_from_file_location("wuerstchen_toy_nodes", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def toys() -> ModuleType:
    return _load_toys()


@pytest.fixture
def nodes(toys: ModuleType) -> Nodes:
    toys.CALLS.clear()
    return toys.TOY_NODES


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    for name in ("input", "output", "temp"):
        (tmp_path / name).mkdir()
    return Folders(tmp_path / "input", tmp_path / "output", tmp_path / "temp")


@pytest.fixture
def inside(folders: Folders):
    """The test runs inside these folders, as a node would."""
    with use(HostSurroundings(folders)):
        yield folders


@pytest.fixture
def executor(nodes: Nodes, folders: Folders) -> Executor:
    return Executor(nodes.classes, folders)


@pytest.fixture
def run(executor: Executor, nodes: Nodes):
    """Validates and runs a prompt given as {id: (class, inputs)}; returns (result, events)."""

    def run_prompt(short, **options):
        prompt = {
            node_id: {"class_type": class_type, "inputs": dict(inputs)}
            for node_id, (class_type, inputs) in short.items()
        }
        outputs = [
            node_id
            for node_id, node in prompt.items()
            if getattr(nodes.classes[node["class_type"]], "OUTPUT_NODE", False)
        ]
        events = []
        result = executor.run(
            prompt, outputs, on_event=lambda kind, data: events.append((kind, data)), **options
        )
        return result, events

    return run_prompt
