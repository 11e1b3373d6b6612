"""Files that are no weights, or not those of Würstchen v2."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

from .tiny import networks

Spoil = Callable[[Path], Path]  # writes something into a folder, gives what to load


class _RunsCode:
    """Pickles to a call of os.mkdir."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.trace),)


def trace_of(folder: Path) -> Path:
    """Where code from a file would leave its mark."""
    return folder / "the-code-ran"


def missing(folder: Path) -> Path:
    return folder / "nothing" / "here.safetensors"


def missing_folder(folder: Path) -> Path:
    return folder / "nothing"


def empty_folder(folder: Path) -> Path:
    return folder


def empty(folder: Path) -> Path:
    path = folder / "empty.safetensors"
    path.touch()
    return path


def text(folder: Path) -> Path:
    path = folder / "text.safetensors"
    path.write_text("These are not the weights you are looking for.\n" * 100)
    return path


def short_text(folder: Path) -> Path:
    path = folder / "text.pt"
    path.write_text("{}")
    return path


def web_page(folder: Path) -> Path:
    path = folder / "page.safetensors"
    path.write_text("<!DOCTYPE html><html>404</html>")
    return path


def lfs_pointer(folder: Path) -> Path:
    path = folder / "pointer.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    return path


def gguf(folder: Path) -> Path:
    path = folder / "model.gguf.safetensors"
    path.write_bytes(b"GGUF" + bytes(200))
    return path


def zeros(folder: Path) -> Path:
    """What a download leaves that was set aside and never written."""
    path = folder / "zeros.safetensors"
    path.write_bytes(bytes(4096))
    return path


def huge_header(folder: Path) -> Path:
    path = folder / "huge.safetensors"
    path.write_bytes((1 << 60).to_bytes(8, "little") + b'{"a":' + b" " * 100)
    return path


def deep_header(folder: Path) -> Path:
    return _headed(folder / "deep.safetensors", b'{"a":' + b"[" * 50_000)


def no_header(folder: Path) -> Path:
    return _headed(folder / "header.safetensors", b'{"a": nul}')


def unknown_dtype(folder: Path) -> Path:
    return _stated(folder / "dtype.safetensors", "F4", [4], [0, 16])


def negative_shape(folder: Path) -> Path:
    return _stated(folder / "shape.safetensors", "F32", [-4], [0, 16])


def overflowing_shape(folder: Path) -> Path:
    return _stated(folder / "shape.safetensors", "F32", [1 << 40, 1 << 40], [0, 16])


def offsets_beyond_the_end(folder: Path) -> Path:
    return _stated(folder / "offsets.safetensors", "F32", [4], [1 << 40, (1 << 40) + 16])


def offsets_backwards(folder: Path) -> Path:
    return _stated(folder / "offsets.safetensors", "F32", [4], [16, 0])


def truncated_safetensors(folder: Path) -> Path:
    return _cut(_stage_c(folder / "cut.safetensors"))


def truncated_header(folder: Path) -> Path:
    return _cut(_stage_c(folder / "cut.safetensors"), 100)


def truncated_pt(folder: Path) -> Path:
    return _cut(_stage_c(folder / "cut.pt"))


def truncated_legacy_pt(folder: Path) -> Path:
    path = folder / "cut.pt"
    torch.save(networks()["stage_c"].state_dict(), path, _use_new_zipfile_serialization=False)
    return _cut(path)


def code_in_pickle(folder: Path) -> Path:
    path = folder / "code.pt"
    path.write_bytes(pickle.dumps({"state_dict": _RunsCode(trace_of(folder))}))
    return path


def code_in_torch_file(folder: Path) -> Path:
    path = folder / "code.pt"
    torch.save({"state_dict": _RunsCode(trace_of(folder))}, path)
    return path


def no_tensors(folder: Path) -> Path:
    path = folder / "numbers.pt"
    torch.save({"iter": 3}, path)
    return path


def other_zip(folder: Path) -> Path:
    import zipfile

    path = folder / "archive.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no weights")
    return path


def broken_index(folder: Path) -> Path:
    path = folder / "model.safetensors.index.json"
    path.write_text('{"weight_map": {"a": "model-00001-of-00002.safetensors"}}')
    return folder


def stable_cascade(folder: Path) -> Path:
    names = (
        "embedding.1.weight",
        "clip_txt_pooled_mapper.weight",
        "clip_txt_mapper.weight",
        "clip_img_mapper.weight",
        "down_blocks.0.0.depthwise.weight",
        "up_blocks.0.0.depthwise.weight",
        "clf.1.weight",
    )
    path = folder / "stage_c.safetensors"
    save_file({name: torch.zeros(4, 4) for name in names}, path)
    return path


UNREADABLE: tuple[Spoil, ...] = (
    missing,
    missing_folder,
    empty_folder,
    empty,
    text,
    short_text,
    web_page,
    lfs_pointer,
    gguf,
    zeros,
    huge_header,
    deep_header,
    no_header,
    unknown_dtype,
    negative_shape,
    overflowing_shape,
    offsets_beyond_the_end,
    offsets_backwards,
    truncated_safetensors,
    truncated_header,
    truncated_pt,
    truncated_legacy_pt,
    code_in_pickle,
    code_in_torch_file,
    no_tensors,
    other_zip,
    broken_index,
)


def _headed(path: Path, header: bytes) -> Path:
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
    return path


def _stated(path: Path, dtype: str, shape: list[int], offsets: list[int]) -> Path:
    about = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
    return _headed(path, json.dumps({"cond_mapper.0.weight": about}).encode())


def _stage_c(path: Path) -> Path:
    state = networks()["stage_c"].state_dict()
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    return path


def _cut(path: Path, size: int | None = None) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: size or len(content) // 2])
    return path
