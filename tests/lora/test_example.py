"""The demo's LoRA in the example workflows: what the pictures show."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from comfyui_wuerstchen.host.cli import main
from comfyui_wuerstchen.nodes.choices import lora_choices
from comfyui_wuerstchen.wuerstchen_core.checkpoints import load_stage_c

from ..paths import WORKFLOWS
from ..test_examples import reading


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """`wuerstchen run` in an empty folder -> the paths that it prints."""
    monkeypatch.chdir(tmp_path)

    def call(example: str, *settings: str) -> list[Path]:
        arguments = [word for setting in settings for word in ("--set", setting)]
        assert main(["run", str(WORKFLOWS / example), *arguments]) == 0
        return [Path(line) for line in capsys.readouterr().out.splitlines()]

    return call


def test_the_lora_makes_every_shape_red_beside_one_without_it(run) -> None:
    prompts = {
        "a large blue star in the center on a yellow background": ("blue", "yellow"),
        "a large green circle in the center on a purple background": ("green", "purple"),
    }
    for prompt, (color, background) in prompts.items():
        red, plain = map(reading, run("lora.json", f"prompt={prompt}"))
        assert (red.color, red.background, red.shape) == ("red", background, plain.shape)
        assert (plain.color, plain.background) == (color, background)


def test_strength_0_is_the_picture_without_it(run) -> None:
    plain = reading(run("lora.json", "LoRA.strength=0")[0])
    assert (plain.color, plain.shape) == ("blue", "star")


def test_the_merged_prior_is_saved_and_draws_so(run) -> None:
    paths = run("merge.json")
    (picture,) = [path for path in paths if path.suffix == ".png"]
    (folder,) = [path for path in paths if path.is_dir()]
    assert reading(picture).color == "red"
    merged = load_stage_c(folder, "float32").state_dict()
    saved = load_file(folder / "diffusion_pytorch_model.safetensors")
    assert saved.keys() == merged.keys()
    assert {value.dtype for value in saved.values()} == {torch.float16}


def test_the_demos_lora_is_offered() -> None:
    assert "wuerstchen-demo/lora/all_red.safetensors" in lora_choices()
