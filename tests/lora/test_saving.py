"""Save Stage C beside other processes, on a full disk, and under names that no disk takes."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from comfyui_wuerstchen.host.cli import main
from comfyui_wuerstchen.host.folders import Folders, HostSurroundings
from comfyui_wuerstchen.nodes import NODE_CLASS_MAPPINGS, runtime
from comfyui_wuerstchen.nodes.loaders import open_part
from comfyui_wuerstchen.nodes.parts import Part
from comfyui_wuerstchen.wuerstchen_core.checkpoints import save_network
from comfyui_wuerstchen.wuerstchen_core.errors import SettingError
from comfyui_wuerstchen.wuerstchen_core.files import PARTIAL_PREFIX
from comfyui_wuerstchen.wuerstchen_core.folder_lock import clean_output

from ..checkpoints.tiny import networks


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prior")
    save_network(networks()["stage_c"], folder)
    return folder


@pytest.fixture
def part(prior: Path, tmp_path: Path) -> Iterator[Part[Any]]:
    with runtime.use(HostSurroundings(Folders(tmp_path, tmp_path, tmp_path))):
        yield open_part("stage_c", lambda: prior, "float32", prior)


def save(part: Part[Any], prefix: str) -> dict[str, Any]:
    return NODE_CLASS_MAPPINGS["WuerstchenSaveStageC"]().save(part, prefix, "float32")


@contextmanager
def full_disk() -> Iterator[None]:
    """No file gets larger than a few KB."""
    resource = pytest.importorskip("resource")  # not on Windows
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_told(part: Part[Any], prior: Path, tmp_path: Path, capsys: Any) -> None:
    with full_disk(), pytest.raises(SettingError, match="cannot be written.*File too large"):
        save(part, "wuerstchen/prior")
    commands = {
        1: ["convert", str(prior), str(tmp_path / "converted.safetensors")],
        2: ["merge", str(prior), str(prior), str(tmp_path / "merged")],
    }
    for code, arguments in commands.items():
        with full_disk():
            assert main(arguments) == code
        said = capsys.readouterr().err
        assert "cannot be written" in said and "File too large" in said and said.count("\n") == 1
    assert [path.name for path in tmp_path.rglob("*") if path.suffix == ".safetensors"] == []


@pytest.mark.parametrize("prefix", ["a" * 300 + "/b", "a" * 300, "\ud800", "\ud800/b"])
def test_names_that_no_disk_takes_are_told(part: Part[Any], prefix: str) -> None:
    with pytest.raises(SettingError) as error:
        save(part, prefix)
    str(error.value).encode()


def test_a_save_in_progress_is_not_cleaned_away(part: Part[Any], tmp_path: Path) -> None:
    """Another process that starts cleans the folder; it waits until the save is done."""
    content, cleaning = part.content, []

    def while_saving() -> Any:
        thread = threading.Thread(target=clean_output, args=(tmp_path,))
        thread.start()
        thread.join(0.3)
        cleaning.append((thread, thread.is_alive()))
        return content()

    part.content = while_saving  # type: ignore[method-assign]
    save(part, "wuerstchen/prior")
    (thread, waited) = cleaning[0]
    thread.join(10)
    assert waited and (tmp_path / "wuerstchen" / "prior_00001" / "config.json").is_file()


def test_what_a_killed_save_left_is_removed(part: Part[Any], tmp_path: Path) -> None:
    save(part, "wuerstchen/prior")
    left = tmp_path / "wuerstchen" / f"{PARTIAL_PREFIX}0-prior_00002"
    left.mkdir()
    clean_output(tmp_path)
    assert not left.exists() and (tmp_path / "wuerstchen" / "prior_00001").is_dir()
