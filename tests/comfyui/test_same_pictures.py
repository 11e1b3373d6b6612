"""Each example workflow that is not for ComfyUI alone gives the same picture in ComfyUI, headless
and in the embedded host."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from comfyui_wuerstchen.host.server.assemble import ServeSettings

from ..examples import ON_DEMO
from ..server.conftest import serving
from ..server.workflows import api_prompt
from .conftest import Comfy

pytestmark = [pytest.mark.comfyui, pytest.mark.slow]

EXACT = {"dtype": "float32"}


async def in_the_host(prompt: dict[str, Any], folder: Path) -> list[np.ndarray]:
    async with serving(ServeSettings("127.0.0.1", 0, folder)) as running:
        listener = await running.listen()
        status, answer = await running.submit(prompt, client_id="tester")
        assert status == 200, answer
        await listener.until_done(answer["prompt_id"])
        history = await running.get(f"/history/{answer['prompt_id']}")
        outputs = history[answer["prompt_id"]]["outputs"]
        saved = [one for ui in outputs.values() for one in ui.get("images", ())]
        await listener.socket.close()
    return [pixels(folder / "output" / one["subfolder"] / one["filename"]) for one in saved]


def headless(workflow: Path, exact: list[str], folder: Path) -> list[np.ndarray]:
    code = "import sys; from comfyui_wuerstchen.host.cli import main; sys.exit(main())"
    choices = [word for node in exact for word in ("--set", f"{node}.dtype=float32")]
    command = [sys.executable, "-c", code, "run", str(workflow), *choices]
    command += ["--output-dir", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=folder.parent)
    assert done.returncode == 0, done.stderr
    return [pixels(path) for path in sorted(folder.rglob("*.png"))]


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


@pytest.mark.parametrize("workflow", ON_DEMO, ids=lambda path: path.stem)
async def test_same_picture(comfyui: Comfy, tmp_path: Path, workflow: Path) -> None:
    prompt = api_prompt(workflow, **EXACT)
    native = await comfyui.pictures(prompt)
    hosted = await in_the_host(prompt, tmp_path / "data")
    exact = [number for number, node in prompt.items() if "dtype" in node["inputs"]]
    ran = headless(workflow, exact, tmp_path / "headless")
    for where, other in (("host", hosted), ("headless", ran)):
        assert len(other) == len(native) > 0
        difference = int(np.abs(np.stack(native).astype(int) - np.stack(other)).max())
        print(f"{workflow.stem}: ComfyUI and {where} differ by {difference}/255 at most")
        assert difference <= 1
