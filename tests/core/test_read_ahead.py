"""Parts are read once, when they are needed or while the one before works."""

import shutil
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from comfyui_wuerstchen.wuerstchen_core.checkpoints import find_parts
from comfyui_wuerstchen.wuerstchen_core.errors import CheckpointError, MissingPartError
from comfyui_wuerstchen.wuerstchen_core.optimize import Optimization
from comfyui_wuerstchen.wuerstchen_core.pipeline import Pipeline
from comfyui_wuerstchen.wuerstchen_core.read_ahead import ReadAhead

from ..checkpoints.tiny import write_published

OPTIONS = {"width": 128, "height": 128, "steps": 2, "decoder_steps": 2, "seed": 4}


def test_the_next_is_read_while_the_first_works() -> None:
    reads: list[str] = []
    second_is_read = threading.Event()

    def read_second() -> str:
        reads.append("second")
        second_is_read.set()
        return "two"

    third = ReadAhead(lambda: reads.append("third"))
    second = ReadAhead(read_second, third)
    first = ReadAhead(lambda: reads.append("first") or "one", second)
    assert reads == []  # nothing before it is asked for
    assert first.get() == "one"
    assert second_is_read.wait(10)  # though nobody asked
    assert first.get() == "one"
    assert reads == ["first", "second"]  # not the third yet, and none twice
    assert second.get() == "two"
    third.get()
    assert reads == ["first", "second", "third"]


def test_an_error_is_raised_where_the_part_is_asked_for() -> None:
    files: dict[str, str] = {}
    second = ReadAhead(lambda: files["second"])
    first = ReadAhead(lambda: "one", second)
    before = threading.active_count()
    assert first.get() == "one"
    with pytest.raises(KeyError, match="second"):
        second.get()
    assert first.get() == "one"
    while threading.active_count() > before:  # the second is tried again, and fails again
        pass
    files["second"] = "two"
    assert second.get() == "two"
    assert threading.active_count() == before


def test_two_that_ask_at_once_get_the_same() -> None:
    part = ReadAhead(object)
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(part.get())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(map(id, found))) == 1


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_published(tmp_path / "weights", tmp_path / "tokenizer")
    return tmp_path / "weights"


def test_a_pipeline_reads_what_it_needs(folder: Path) -> None:
    damaged = find_parts(folder).require("stage_b") / "diffusion_pytorch_model.safetensors"
    content = damaged.read_bytes()
    state = load_file(damaged)
    del state["clip_mapper.bias"]
    save_file(state, damaged)
    before = threading.active_count()
    pipeline = Pipeline.from_folder(folder, "float32", "cpu")
    assert threading.active_count() == before
    stage_c = pipeline.stage_c

    steps: list[str] = []
    with pytest.raises(CheckpointError, match=r"clip_mapper\.bias"):
        pipeline("red", callback=lambda stage, _: steps.append(stage), **OPTIONS)
    assert steps == ["stage_c", "stage_c"]

    damaged.write_bytes(content)
    assert pipeline("red", **OPTIONS)[0].size == (128, 128)
    assert pipeline.stage_c is stage_c
    assert threading.active_count() == before


def test_a_missing_part_is_told_at_once(folder: Path) -> None:
    shutil.rmtree(folder / "wuerstchen" / "vqgan")
    with pytest.raises(MissingPartError):
        Pipeline.from_folder(folder)


@pytest.mark.parametrize("residency", ["one_stage", "streamed"])
def test_every_residency_makes_the_same_pictures(folder: Path, residency: str) -> None:
    resident = Pipeline.from_folder(folder, "bfloat16", "cpu")
    moving = Pipeline.from_folder(folder, "bfloat16", "cpu", Optimization(residency=residency))
    for decoder_cfg in (0.0, 2.0):
        options = OPTIONS | {"decoder_cfg": decoder_cfg, "images_per_prompt": 2}
        expected, found = (
            pipe(["red", "a blue star"], "no", **options) for pipe in (resident, moving)
        )
        assert [p.tobytes() for p in found] == [p.tobytes() for p in expected]
        assert len({p.tobytes() for p in found}) == 4


def test_what_steps_do_reaches_the_samplers(folder: Path) -> None:
    counts: dict[float, int] = {}
    for end in (1.0, 0.0):
        pipeline = Pipeline.from_folder(folder, "float32", "cpu", Optimization(guidance_end=end))
        batches: list[int] = []
        hook = pipeline.stage_c.register_forward_pre_hook(
            lambda _, inputs, batches=batches: batches.append(len(inputs[0]))
        )
        pipeline("red", **OPTIONS)
        hook.remove()
        counts[end] = sum(batches)
    assert counts == {1.0: 4, 0.0: 2}  # two steps, each with and without its guiding half


def test_equal_texts_are_encoded_once(folder: Path) -> None:
    pipeline = Pipeline.from_folder(folder, "float32", "cpu")
    seen: list[int] = []
    tower = pipeline.prior_text_encoder.network
    hook = tower.register_forward_pre_hook(
        lambda _, __, given: seen.append(len(given["input_ids"])), with_kwargs=True
    )
    both = pipeline(["red", "red"], "", **OPTIONS)
    hook.remove()
    assert seen == [2]
    alone = pipeline("red", "", **(OPTIONS | {"seed": 5}))[0]
    difference = torch.tensor(list(both[1].tobytes())) - torch.tensor(list(alone.tobytes()))
    assert difference.abs().max() <= 1
