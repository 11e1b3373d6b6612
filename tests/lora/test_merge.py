"""Priors merged, LoRAs baked in, and saved, from Python, by nodes and on the command line."""

import json
import random
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from comfyui_wuerstchen.host.cli import main
from comfyui_wuerstchen.host.folders import Folders, HostSurroundings
from comfyui_wuerstchen.nodes import NODE_CLASS_MAPPINGS, runtime
from comfyui_wuerstchen.nodes.loaders import open_part
from comfyui_wuerstchen.wuerstchen_core.checkpoints import load_stage_c, save_network
from comfyui_wuerstchen.wuerstchen_core.checkpoints.configs import STAGE_C
from comfyui_wuerstchen.wuerstchen_core.checkpoints.load import open_weights
from comfyui_wuerstchen.wuerstchen_core.errors import MismatchedCheckpointError, SettingError
from comfyui_wuerstchen.wuerstchen_core.folder_lock import LOCK_NAME
from comfyui_wuerstchen.wuerstchen_core.merge import merged
from comfyui_wuerstchen.wuerstchen_core.optimize import Optimization
from comfyui_wuerstchen.wuerstchen_core.stage_c import StageC, StageCConfig

from ..checkpoints.tiny import STAGE_C as TINY
from .files import kohya, write

CONFIG = TINY


@pytest.fixture(scope="module")
def priors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Base, finetuned and a third prior of random weights, float32, and a LoRA."""
    folder = tmp_path_factory.mktemp("priors")
    paths = {}
    for seed, name in enumerate(("base", "finetuned", "third")):
        torch.manual_seed(seed)
        paths[name] = folder / name
        save_network(StageC(CONFIG), paths[name], torch.float32)
    state = load_file(paths["base"] / "diffusion_pytorch_model.safetensors")
    paths["lora"] = write(folder / "style.safetensors", kohya(state))
    return paths


def states(priors: dict[str, Path], *names: str) -> list[dict[str, torch.Tensor]]:
    return [load_file(priors[name] / "diffusion_pytorch_model.safetensors") for name in names]


@pytest.mark.parametrize("ratio", [0.5, 0.0, 1.0, 0.3, -0.5, 1.5])
def test_a_weighted_sum_is_the_lerp_bit_for_bit(priors, ratio: float) -> None:
    a, b = (open_weights(STAGE_C, priors[name]) for name in ("base", "finetuned"))
    made = merged(a, b, ratio)
    assert made.config == CONFIG and made.state.keys() == a.state.keys()
    for name, value in made.state.items():
        assert torch.equal(value, torch.lerp(a.state[name], b.state[name], ratio)), name
    if ratio in (0.0, 1.0):
        ends = (a, b)[int(ratio)].state
        assert all(torch.equal(value, ends[name]) for name, value in made.state.items())


def test_the_published_interpolation_is_the_mean(priors) -> None:
    """What the authors publish as interpolated: half of each of the other two."""
    a, b = (open_weights(STAGE_C, priors[name]) for name in ("base", "finetuned"))
    for name, value in merged(a, b, 0.5).state.items():
        mean = (a.state[name].double() + b.state[name].double()) / 2
        torch.testing.assert_close(value.double(), mean, rtol=1e-6, atol=1e-7)


def test_a_difference_is_added(priors) -> None:
    a, b, c = (open_weights(STAGE_C, priors[n]) for n in ("base", "finetuned", "third"))
    made = merged(a, b, 0.7, c)
    for name, value in made.state.items():
        expected = a.state[name] + 0.7 * (b.state[name] - c.state[name])
        torch.testing.assert_close(value, expected)
    back = merged(made, c, 0.7, b)
    for name, value in back.state.items():
        torch.testing.assert_close(value, a.state[name], rtol=1e-4, atol=1e-5)


def test_sizes_that_differ_are_told(priors, tmp_path: Path) -> None:
    wider = StageC(StageCConfig(c=192, c_cond=CONFIG.c_cond, depth=2, nhead=3))
    save_network(wider, tmp_path, torch.float32)
    a, b = open_weights(STAGE_C, priors["base"]), open_weights(STAGE_C, tmp_path)
    with pytest.raises(MismatchedCheckpointError, match="A and B are of different networks.*128×"):
        merged(a, b, 0.5)


@pytest.fixture
def parts(priors, tmp_path: Path):
    folders = Folders(tmp_path, tmp_path / "output", tmp_path, models=(priors["lora"].parent,))
    with runtime.use(HostSurroundings(folders)):
        yield {
            name: open_part("stage_c", lambda path=path: path, "float32", path)
            for name, path in priors.items()
            if path.is_dir()
        }


def node(node_id: str, **inputs):
    kind = NODE_CLASS_MAPPINGS[node_id]
    return getattr(kind(), kind.FUNCTION)(**inputs)


def merge(a, b, method="weighted_sum", ratio=0.5, **more):
    inputs = {"method": method, "ratio": ratio, "dtype": "float32", **more}
    return node("WuerstchenMergeStageC", stage_c_a=a, stage_c_b=b, **inputs)[0]


def with_lora(part, strength: float):
    answer = node(
        "WuerstchenLoadLoRA", stage_c=part, lora_name="style.safetensors", strength=strength
    )
    return answer["result"][0]


def test_a_merged_part_runs_without_the_others_in_memory(parts, priors) -> None:
    made = merge(parts["base"], parts["finetuned"], ratio=0.25)
    network = made.get()
    assert parts["base"].weights.nbytes == parts["finetuned"].weights.nbytes == 0
    a, b = states(priors, "base", "finetuned")
    for name, value in network.state_dict().items():
        assert torch.equal(value, torch.lerp(a[name], b[name], 0.25)), name
    small = made.optimized(Optimization(storage="int8"))
    assert small.get() is not network and made.get() is network


def test_loras_and_merges_in_any_depth(parts, priors) -> None:
    made = with_lora(merge(with_lora(parts["base"], 1.0), parts["finetuned"], ratio=0.5), -0.5)
    plain = merge(parts["base"], parts["finetuned"], ratio=0.5)
    for name, value in plain.get().state_dict().items():
        found = made.get().state_dict()[name]
        torch.testing.assert_close(found, value, rtol=1e-4, atol=1e-5)
    assert made.made_of == (
        "0.5 × (base + 1 × style.safetensors) + 0.5 × (finetuned) + -0.5 × style.safetensors"
    )


def test_add_difference_needs_the_third(parts) -> None:
    with pytest.raises(SettingError, match="`stage_c_c`"):
        merge(parts["base"], parts["finetuned"], "add_difference")
    merge(parts["base"], parts["finetuned"], "add_difference", stage_c_c=parts["third"]).get()


def test_saved_priors_are_read_again_by_us_and_by_diffusers(parts, priors, tmp_path: Path) -> None:
    from diffusers.pipelines.deprecated.wuerstchen import WuerstchenPrior

    made = with_lora(merge(parts["base"], parts["finetuned"]), 0.5)
    inputs = {"stage_c": made, "filename_prefix": "mine/prior", "dtype": "float32"}
    answers = [node("WuerstchenSaveStageC", **inputs) for _ in range(2)]
    saved = [answer["ui"]["folders"][0]["filename"] for answer in answers]
    assert saved == ["prior_00001", "prior_00002"] and answers[0]["result"] == (made,)
    folder = tmp_path / "output" / "mine" / "prior_00001"
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "diffusion_pytorch_model.safetensors",
    ]
    with safe_open(folder / "diffusion_pytorch_model.safetensors", "pt") as file:
        assert file.metadata()["format"] == "pt"
        assert file.metadata()["wuerstchen.made_of"] == made.made_of
    expected = made.get().state_dict()
    ours, theirs = load_stage_c(folder, "float32"), WuerstchenPrior.from_pretrained(folder)
    for network in (ours, theirs):
        found = network.state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert json.loads((folder / "config.json").read_text())["_class_name"] == "WuerstchenPrior"


@pytest.mark.parametrize("prefix", ["../out", "/out", "a/../../out", "", ".hidden", "a/.b"])
def test_nothing_is_saved_outside(parts, tmp_path: Path, prefix: str) -> None:
    with pytest.raises(SettingError, match="filename_prefix"):
        node("WuerstchenSaveStageC", stage_c=parts["base"], filename_prefix=prefix, dtype="float16")
    assert not (tmp_path / "output").exists()


def test_a_failed_save_leaves_nothing(parts, priors, tmp_path: Path) -> None:
    from comfyui_wuerstchen.wuerstchen_core.errors import CheckpointError

    huge = with_lora(parts["base"], 1e8)
    with pytest.raises(CheckpointError, match="cannot hold"):
        node("WuerstchenSaveStageC", stage_c=huge, filename_prefix="huge", dtype="float16")
    assert [path.name for path in (tmp_path / "output").iterdir()] == [LOCK_NAME]


def test_the_command(priors, tmp_path: Path, capsys) -> None:
    out = tmp_path / "merged"
    arguments = [str(priors["base"]), str(priors["finetuned"]), "--ratio", "0.3", str(out)]
    lora = ["--lora", f"{priors['lora']}:0.5", "--dtype", "float32"]
    assert main(["merge", *arguments, *lora]) == 0
    said = capsys.readouterr().out
    assert "style.safetensors: applied 10 of 10" in said and said.endswith(f"{out}\n")
    a, b = states(priors, "base", "finetuned")
    expected = kohya_of(priors, {name: torch.lerp(a[name], b[name], 0.3) for name in a}, 0.5)
    found = load_file(out / "diffusion_pytorch_model.safetensors")
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)
    assert main(["merge", *arguments]) == 2
    assert "exists already" in capsys.readouterr().err


def kohya_of(priors, state, strength):
    """The LoRA's own product on each weight that it changes."""
    lora = load_file(priors["lora"])
    changed = dict(state)
    for name in state:
        key = "lora_unet_" + name.removesuffix(".weight").replace(".", "_")
        if f"{key}.lora_up.weight" in lora:
            up, down = (lora[f"{key}.lora_{each}.weight"].float() for each in ("up", "down"))
            delta = (up.flatten(1) @ down.flatten(1)).reshape(state[name].shape)
            changed[name] = state[name] + strength * delta * lora[f"{key}.alpha"] / len(down)
    return changed


def test_the_command_bakes_a_lora_alone_and_adds_differences(priors, tmp_path: Path) -> None:
    baked = tmp_path / "baked"
    lora = ["--lora", str(priors["lora"]), "--dtype", "float32"]
    assert main(["merge", str(priors["base"]), "-", str(baked), *lora]) == 0
    (a,) = states(priors, "base")
    found = load_file(baked / "diffusion_pytorch_model.safetensors")
    for name, value in kohya_of(priors, a, 1.0).items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)
    out = tmp_path / "difference"
    third = ["--difference", str(priors["third"]), "--dtype", "float32"]
    pair = [str(priors["base"]), str(priors["finetuned"])]
    assert main(["merge", *pair, str(out), *third]) == 0
    a, b, c = states(priors, "base", "finetuned", "third")
    found = load_file(out / "diffusion_pytorch_model.safetensors")
    name = random.Random(0).choice(sorted(a))
    torch.testing.assert_close(found[name], a[name] + 0.5 * (b[name] - c[name]))


def test_the_command_says_what_is_wrong(priors, tmp_path: Path, capsys) -> None:
    out = str(tmp_path / "out")
    base = str(priors["base"])
    cases = {
        "does not exist": ["merge", base, str(tmp_path / "nothing"), out],
        "a LoRA is expected": [
            "merge",
            base,
            "-",
            out,
            "--lora",
            f"{base}/diffusion_pytorch_model.safetensors:2",
        ],
        "--difference needs B": ["merge", base, "-", out, "--difference", base],
    }
    for words, arguments in cases.items():
        assert main(arguments) == 2
        said = capsys.readouterr().err
        assert words in said and said.count("\n") == 1, said
    assert not Path(out).exists()


@pytest.mark.parametrize("ratio", ["nan", "inf", "1e39", "-11"])
def test_ratios_and_strengths_beyond_reason_are_told(
    ratio: str, priors, tmp_path: Path, capsys
) -> None:
    base, out = str(priors["base"]), tmp_path / "out"
    merging = ["merge", base, str(priors["finetuned"]), f"--ratio={ratio}", str(out)]
    baking = ["merge", base, "-", "--lora", f"{priors['lora']}:{ratio}", str(out)]
    for arguments in (merging, baking):
        assert main(arguments) == 2
        assert "is not between -10 and 10" in capsys.readouterr().err
    assert not out.exists()


def test_weights_that_are_not_finite_are_not_written(priors, tmp_path: Path, capsys) -> None:
    shutil.copytree(priors["base"], tmp_path / "damaged")
    file = tmp_path / "damaged" / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    state["projection.bias"][0] = torch.nan
    save_file(state, file)
    out = tmp_path / "out"
    assert main(["merge", str(file.parent), str(priors["finetuned"]), str(out)]) == 2
    assert "projection.bias is not finite" in capsys.readouterr().err and not out.exists()
