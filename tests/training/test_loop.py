"""The training loop: exact resume, whole files, and what it reports."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from comfyui_wuerstchen.wuerstchen_core.errors import SettingError
from comfyui_wuerstchen.wuerstchen_core.training.loop import TrainSettings, averaged, train

SETTINGS = TrainSettings(steps=8, warmup=2, probe_every=4, save_seconds=1e9, autocast=False)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.5), nn.BatchNorm1d(16), nn.Linear(16, 1))


class ToyTask:
    """Learns the sum of four numbers, with dropout, so that the global generator matters too."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.network = network()
        self.stop_after = stop_after

    def loss(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        if step == self.stop_after:
            raise KeyboardInterrupt
        x = torch.randn(32, 4, generator=generator)
        error = (self.network(x) - x.sum(dim=1, keepdim=True)).square().mean()
        return {"error": error, "size": 1e-4 * self.network[0].weight.square().mean()}

    def probe(self, network: nn.Module) -> dict[str, float]:
        return {"answer": network(torch.ones(1, 4)).item()}

    def sheet(self, network: nn.Module) -> Image.Image:
        return Image.new("RGB", (8, 8))


def test_a_resumed_run_ends_where_an_unbroken_one_does(tmp_path: Path) -> None:
    whole = train(ToyTask(), SETTINGS, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        # Every step is saved; the interrupt falls into the middle of the sixth.
        train(ToyTask(stop_after=5), replace(SETTINGS, save_seconds=0), tmp_path / "broken")
    assert torch.load(tmp_path / "broken" / "checkpoint.pt", weights_only=True)["step"] == 5
    resumed = train(ToyTask(), SETTINGS, tmp_path / "broken")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    logs = [(tmp_path / name / "log.jsonl").read_text() for name in ("whole", "broken")]
    assert logs[0] == logs[1]


def test_an_interrupted_step_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(ToyTask(stop_after=3), SETTINGS, tmp_path)
    assert not (tmp_path / "checkpoint.pt").exists()
    train(ToyTask(), SETTINGS, tmp_path)
    steps = [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 9))


def test_what_it_writes(tmp_path: Path) -> None:
    train(ToyTask(), SETTINGS, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        "checkpoint.pt", "log.jsonl", "loss.png", "sheet_000004.png", "sheet_000008.png",
    }  # fmt: skip
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == list(range(1, 9))
    assert "answer" in records[3] and "answer" not in records[2]
    assert {"error", "size"} <= records[0].keys()


def test_a_torn_log_line_and_lines_after_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    train(ToyTask(), replace(SETTINGS, steps=4), tmp_path)
    log = tmp_path / "log.jsonl"
    log.write_text(log.read_text() + '{"step": 5, "error": 1.0}\n{"step": 6, "err')
    train(ToyTask(), SETTINGS, tmp_path)
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == list(range(1, 9))


def test_it_learns_and_the_average_is_what_comes_back(tmp_path: Path) -> None:
    settings = replace(SETTINGS, steps=400, learning_rate=3e-2, ema_decay=0.9, probe_every=400)
    trained = train(ToyTask(), settings, tmp_path)
    assert trained(torch.ones(1, 4)).item() == pytest.approx(4, abs=0.8)
    loaded = averaged(tmp_path, network())
    assert torch.equal(loaded[0].weight, trained[0].weight)


def test_a_stage_that_is_not_trained_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="train it first"):
        averaged(tmp_path / "stage_b", network())
