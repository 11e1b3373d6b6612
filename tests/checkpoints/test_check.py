"""A part is checked without its weights: the same is refused, with the same words."""

import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from comfyui_wuerstchen.wuerstchen_core.checkpoints import check_part, find_parts
from comfyui_wuerstchen.wuerstchen_core.errors import SettingError, WuerstchenError
from comfyui_wuerstchen.wuerstchen_core.stage_c import StageC, StageCConfig

from . import broken
from .test_broken import LOADERS, WEIGHTS
from .tiny import networks, write_file

PARTS = {"text_encoder": "prior_text_encoder"}  # where loader and part differ in name
PUBLISHED = StageCConfig(c=1536, c_cond=1280, depth=32, nhead=24)


def part_of(loader: str) -> str:
    return PARTS.get(loader, loader)


def refusal(attempt: Callable[[], Any]) -> tuple[type[BaseException], str]:
    with pytest.raises(WuerstchenError) as caught:
        attempt()
    return caught.type, str(caught.value)


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("spoil", broken.UNREADABLE, ids=lambda spoil: spoil.__name__)
def test_what_cannot_be_read(loader: str, spoil: broken.Spoil, tmp_path: Path) -> None:
    path = spoil(tmp_path)
    checked = refusal(lambda: check_part(part_of(loader), path))
    assert checked == refusal(lambda: LOADERS[loader](path))
    assert not broken.trace_of(tmp_path).exists()


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("other", networks())
def test_other_parts(loader: str, other: str, tmp_path: Path) -> None:
    path = write_file(tmp_path / "weights.pt", networks()[other].state_dict())
    if loader == other:
        check_part(part_of(loader), path)
        return
    checked = refusal(lambda: check_part(part_of(loader), path))
    assert checked == refusal(lambda: LOADERS[loader](path))


@pytest.mark.parametrize("loader", LOADERS)
def test_what_does_not_fit_its_config(loader: str, published: Path, tmp_path: Path) -> None:
    source = find_parts(published).require(part_of(loader))
    check_part(part_of(loader), source)
    folder = tmp_path / "repository" / "part"
    shutil.copytree(source, folder)
    for tokenizer in source.parent.glob("tokenizer"):
        shutil.copytree(tokenizer, folder.parent / "tokenizer")
    config = json.loads((folder / "config.json").read_text())
    changed = {
        "stage_c": {"depth": 3},
        "stage_b": {"clip_embd": 1024},
        "stage_a": {"bottleneck_blocks": 12},
        "image_encoder": {"c_latent": 4},
        "text_encoder": {"num_hidden_layers": 3},
    }[loader]
    (folder / "config.json").write_text(json.dumps(config | changed))
    checked = refusal(lambda: check_part(part_of(loader), folder))
    assert checked == refusal(lambda: LOADERS[loader](folder))


def test_a_dtype_that_the_device_cannot_use(published: Path) -> None:
    path = find_parts(published).require("stage_c")
    with pytest.raises(SettingError, match="float16"):
        check_part("stage_c", path, "float16", torch.device("cpu"))


DTYPES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
}


def write_holes(
    path: Path, shapes: dict[str, torch.Size], dtype: torch.dtype = torch.float32
) -> int:
    """A safetensors file of zeros that takes no room on the disk; its size in bytes."""
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + dtype.itemsize * shape.numel()
        stated = {"dtype": DTYPES[dtype], "shape": list(shape), "data_offsets": [start, end]}
        header[name] = stated
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    return end


def test_weights_of_the_published_size_are_not_read(tmp_path: Path) -> None:
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in StageC(PUBLISHED).state_dict().items()}
    size = write_holes(tmp_path / WEIGHTS, shapes)
    assert size > 3.9e9
    config = {name: getattr(PUBLISHED, name) for name in ("c", "c_cond", "depth", "nhead")}
    (tmp_path / "config.json").write_text(json.dumps(config))
    code = (
        "import resource, sys; from pathlib import Path;"
        "from comfyui_wuerstchen.wuerstchen_core.checkpoints import check_part;"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "before = peak(); check_part('stage_c', Path(sys.argv[1])); print(peak() - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    assert int(done.stdout) * unit < 0.05 * size
