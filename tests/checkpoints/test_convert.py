"""Converted weights are the same tensors, bit for bit, from every layout to every other."""

import json
from itertools import product
from pathlib import Path

import pytest
import torch
from diffusers.pipelines.deprecated.wuerstchen.modeling_wuerstchen_prior import WuerstchenPrior
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPTextModel

from comfyui_wuerstchen.host.cli import main
from comfyui_wuerstchen.wuerstchen_core.checkpoints import (
    find_parts,
    load_text_encoder,
    save_network,
)
from comfyui_wuerstchen.wuerstchen_core.checkpoints.convert import (
    STAGE_LAYOUTS,
    TEXT_LAYOUTS,
    convert,
)
from comfyui_wuerstchen.wuerstchen_core.errors import (
    CheckpointError,
    ForeignCheckpointError,
    MismatchedCheckpointError,
    SettingError,
)
from comfyui_wuerstchen.wuerstchen_core.files import PARTIAL_PREFIX
from comfyui_wuerstchen.wuerstchen_core.stage_a import StageA, StageAConfig
from comfyui_wuerstchen.wuerstchen_core.stage_c import StageC, StageCConfig

from ..paths import DEMO
from ..v1 import tiny as v1
from . import broken, towers
from .test_broken import assert_readable
from .tiny import in_original_layout, networks, with_weights, write_file

CPU = torch.device("cpu")
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn)
PROJECTION = "text_projection.weight"


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        value.dtype == expected[name].dtype and torch.equal(bits(value), bits(expected[name]))
        for name, value in found.items()
    )


def bits(value: Tensor) -> Tensor:
    return value.contiguous().view(torch.uint8) if value.ndim else value.float()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("part", networks())
def test_stages_there_and_back(part: str, dtype: torch.dtype, tmp_path: Path) -> None:
    state = {
        name: value.to(dtype) if value.is_floating_point() else value
        for name, value in networks()[part].state_dict().items()
    }
    layouts = {"diffusers": state, "original": in_original_layout(state)}
    for before, after in product(STAGE_LAYOUTS, repeat=2):
        source = write_file(tmp_path / f"{before}.pt", {"state_dict": layouts[before]})
        target = tmp_path / f"{before} to {after}.safetensors"
        done = convert(source, target, after)
        assert (done.part, done.layout, done.files) == (part, after, (target,))
        assert same(load_file(target), layouts[after])


@pytest.mark.parametrize("part", ["stage_b", "image_encoder"])
def test_parts_of_v1_there_and_back(part: str, tmp_path: Path) -> None:
    state = v1.networks()[part].state_dict()
    source = write_file(tmp_path / "v1.pt", {"state_dict": in_original_layout(state)})
    done = convert(source, tmp_path / "new.safetensors")
    assert done.part == f"{part}_v1" and same(load_file(done.files[0]), dict(state))
    convert(done.files[0], tmp_path / "back.safetensors", "original")
    assert same(load_file(tmp_path / "back.safetensors"), in_original_layout(state))


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("words") / "tokenizer"
    towers.tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def text_layouts(words: Path) -> dict[str, dict[str, Tensor]]:
    vocabulary = len(json.loads((words / "vocab.json").read_text("utf-8")))
    stored = towers.open_clip_tower(vocabulary).state_dict()
    open_clip = {name: value for name, value in stored.items() if name != "logit_scale"}
    comfyui = towers.transformers_state(open_clip)
    del comfyui["text_model.embeddings.position_ids"]
    transformers = {name: value for name, value in comfyui.items() if name != PROJECTION}
    bare = {name.removeprefix("text_model."): value for name, value in transformers.items()}
    return dict(zip(TEXT_LAYOUTS, (transformers, bare, open_clip, comfyui), strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
def test_text_encoders_there_and_back(
    dtype: torch.dtype, text_layouts: dict[str, dict[str, Tensor]], tmp_path: Path
) -> None:
    with_projection = ("open_clip", "comfyui")
    for before, after in product(TEXT_LAYOUTS, repeat=2):
        stored = {n: v.to(dtype) for n, v in text_layouts[before].items()}
        source = write_file(tmp_path / f"{before}.pt", stored)
        target = tmp_path / f"{before} to {after}.safetensors"
        done = convert(source, target, after)
        expected = {n: v.to(dtype) for n, v in text_layouts[after].items()}
        if before not in with_projection:  # what was never there cannot come back
            expected = {n: v for n, v in expected.items() if not n.startswith("text_projection")}
        assert same(load_file(target), expected), (before, after)
        lost = before in with_projection and after not in with_projection
        assert done.left_out == ((PROJECTION,) if lost else ())


@pytest.mark.parametrize("layout", towers.LAYOUTS)
def test_every_file_with_a_text_encoder_becomes_a_published_folder(
    layout: str, words: Path, text_layouts: dict[str, dict[str, Tensor]], tmp_path: Path
) -> None:
    stored = {**text_layouts["open_clip"], "logit_scale": torch.ones(())}
    source = write_file(tmp_path / "any.safetensors", towers.LAYOUTS[layout](stored))
    (tmp_path / "tokenizer").symlink_to(words)
    done = convert(source, tmp_path / "new", part="text_encoder")
    assert done.files == (tmp_path / "new/config.json", tmp_path / "new/model.safetensors")
    assert same(load_file(tmp_path / "new/model.safetensors"), text_layouts["transformers"])
    (tmp_path / "tokenizer").unlink()
    texts = ["a small green star", ""]
    states = load_text_encoder(tmp_path / "new", "float32", CPU).encode(texts)
    theirs = CLIPTextModel.from_pretrained(tmp_path / "new").eval()
    tokens = towers.tokenizer(words)(texts, padding="max_length", return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(states, theirs(**tokens).last_hidden_state)


def test_a_folder_that_diffusers_reads(tmp_path: Path) -> None:
    network = networks()["stage_c"]
    source = write_file(tmp_path / "c.pt", in_original_layout(network.state_dict()))
    convert(source, tmp_path / "prior")
    loaded = WuerstchenPrior.from_pretrained(tmp_path / "prior").state_dict()
    assert same(loaded, network.state_dict())


def test_what_a_file_holds_beside_is_chosen_by_part(tmp_path: Path) -> None:
    parts = networks()
    content = {
        "state_dict": in_original_layout(parts["stage_b"].state_dict()),
        "effnet_state_dict": parts["image_encoder"].state_dict(),
    }
    source = write_file(tmp_path / "model_v2_stage_b.pt", content)
    with pytest.raises(SettingError, match="stage_b and image_encoder; say which with --part"):
        convert(source, tmp_path / "new")
    with pytest.raises(SettingError, match="holds no stage_a"):
        convert(source, tmp_path / "new", part="stage_a")
    for part in ("stage_b", "image_encoder"):
        convert(source, tmp_path / part, part=part)
    assert same(
        load_file(tmp_path / "image_encoder/diffusion_pytorch_model.safetensors"),
        dict(parts["image_encoder"].state_dict()),
    )
    assert find_parts(tmp_path / "stage_b").stage_b is not None


def test_a_folder_of_several_parts(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="several networks.*wuerstchen-prior/prior") as caught:
        convert(DEMO, tmp_path / "new")
    assert_readable(str(caught.value))
    repository = tmp_path / "repository"
    save_network(networks()["stage_a"], repository / "vqgan", torch.float32)
    assert convert(repository, tmp_path / "new").part == "stage_a"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_another_dtype(dtype: str, tmp_path: Path) -> None:
    network = networks()["stage_a"]
    source = write_file(tmp_path / "a.safetensors", network.state_dict())
    target = tmp_path / "deeper" / "b.safetensors"
    assert main(["convert", str(source), str(target), "--dtype", dtype]) == 0
    wanted = getattr(torch, dtype)
    expected = {
        name: value.to(wanted) if value.is_floating_point() else value
        for name, value in network.state_dict().items()
    }
    assert same(load_file(target), expected)


def test_a_dtype_that_cannot_hold_the_weights(tmp_path: Path) -> None:
    state = networks()["stage_c"].state_dict()
    state["projection.weight"] = state["projection.weight"] + 1e6
    source = write_file(tmp_path / "c.safetensors", state)
    with pytest.raises(CheckpointError, match="projection.weight goes up to 1e\\+06"):
        convert(source, tmp_path / "new.safetensors", dtype=torch.float16)
    assert not (tmp_path / "new.safetensors").exists()


def test_what_one_packed_tensor_cannot_hold(tmp_path: Path) -> None:
    state = dict(networks()["stage_c"].state_dict())
    name = "blocks.2.attention.to_k.weight"
    source = write_file(tmp_path / "c.pt", {**state, name: state[name].half()})
    target = tmp_path / "new.safetensors"
    with pytest.raises(MismatchedCheckpointError, match="choose a dtype for all") as caught:
        convert(source, target, "original")
    assert_readable(str(caught.value))
    assert not target.exists()
    convert(source, target, "original", dtype=torch.float16)
    halves = {n: v.half() if v.is_floating_point() else v for n, v in state.items()}
    assert same(load_file(target), in_original_layout(halves))


def test_nothing_is_overwritten_unless_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_file(tmp_path / "a.safetensors", networks()["stage_a"].state_dict())
    taken = tmp_path / "taken.safetensors"
    taken.write_text("precious")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "config.json").write_text("precious")
    for target, file in ((taken, taken), (folder, folder / "config.json")):
        assert main(["convert", str(source), str(target)]) == 2
        assert f"{file} exists; --force overwrites it." in capsys.readouterr().err
        assert file.read_text() == "precious"
        assert main(["convert", str(source), str(target), "--force"]) == 0
        assert str(file) in capsys.readouterr().out
    assert same(load_file(taken), dict(networks()["stage_a"].state_dict()))


def test_converting_a_file_onto_itself(tmp_path: Path) -> None:
    state = networks()["stage_c"].state_dict()
    path = write_file(tmp_path / "c.safetensors", in_original_layout(state))
    convert(path, path, overwrite=True)
    assert same(load_file(path), dict(state))
    assert not list(tmp_path.glob(f"{PARTIAL_PREFIX}*"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["new.pt"], "would be a pickle"),
        (["new", "--layout", "original"], "is a single file"),
        (["new.safetensors", "--layout", "open_clip"], "has no layout open_clip"),
    ],
)
def test_what_cannot_be_asked_for(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_file(tmp_path / "c.safetensors", networks()["stage_c"].state_dict())
    target, *rest = arguments
    assert main(["convert", str(source), str(tmp_path / target), *rest]) == 2
    message = capsys.readouterr().err.strip()
    assert says in message
    assert_readable(message)
    assert not (tmp_path / target).exists()


@pytest.mark.parametrize(
    ("network", "field"),
    [
        (StageC(StageCConfig(c=128, c_cond=8, depth=1, nhead=4)), "nhead"),
        (StageA(StageAConfig(bottleneck_blocks=1, embed_dim=32, scale_factor=0.5)), "scale_factor"),
    ],
    ids=["heads", "scale"],
)
def test_what_only_a_config_tells_needs_a_folder(
    network: StageC | StageA, field: str, tmp_path: Path
) -> None:
    save_network(with_weights(network), tmp_path / "own", torch.float32)
    with pytest.raises(MismatchedCheckpointError, match=field) as caught:
        convert(tmp_path / "own", tmp_path / "new.safetensors")
    assert_readable(str(caught.value))
    convert(tmp_path / "own", tmp_path / "copy")
    for name in ("config.json", "diffusion_pytorch_model.safetensors"):
        copied, own = tmp_path / "copy" / name, tmp_path / "own" / name
        assert copied.read_bytes() == own.read_bytes()


@pytest.mark.parametrize("spoil", broken.UNREADABLE, ids=lambda spoil: spoil.__name__)
def test_what_cannot_be_read(spoil: broken.Spoil, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    with pytest.raises(CheckpointError) as caught:
        convert(spoil(tmp_path / "source"), tmp_path / "new")
    assert_readable(str(caught.value))
    assert not (tmp_path / "new").exists()


def test_strangers_are_named(tmp_path: Path) -> None:
    with pytest.raises(ForeignCheckpointError, match="is Stable Cascade Stage C: it belongs"):
        convert(broken.stable_cascade(tmp_path), tmp_path / "new")


def test_a_disk_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_file(tmp_path / "a.safetensors", networks()["stage_a"].state_dict())
    (tmp_path / "file").touch()
    assert main(["convert", str(source), str(tmp_path / "file" / "new.safetensors")]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_the_file_says_that_it_is_for_torch(tmp_path: Path) -> None:
    source = write_file(tmp_path / "a.pt", networks()["stage_a"].state_dict())
    convert(source, tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
