"""Files appear whole or not at all."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from comfyui_wuerstchen.wuerstchen_core.files import remove_partials, write_atomically


def test_success_replaces_and_failure_leaves_what_was(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    with write_atomically(target) as partial:
        partial.write_text("old")
        assert not target.exists()
    with pytest.raises(KeyboardInterrupt), write_atomically(target) as partial:
        partial.write_text("half")
        raise KeyboardInterrupt
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def test_what_a_kill_leaves_is_hidden_and_removed(tmp_path: Path) -> None:
    writer = write_atomically(tmp_path / "file.txt")
    writer.__enter__().write_text("half")
    assert all(path.name.startswith(".") for path in tmp_path.iterdir())
    remove_partials(tmp_path)
    assert not list(tmp_path.iterdir())


def test_everyone_who_may_read_plain_files_may_read_weights(tmp_path: Path) -> None:
    plain, weights = tmp_path / "plain", tmp_path / "weights.safetensors"
    plain.touch()
    with write_atomically(weights) as partial:
        save_file({"x": torch.zeros(1)}, partial)
    assert weights.stat().st_mode == plain.stat().st_mode
