"""The one seam between the nodes and what surrounds them: ComfyUI, our host, or a plain script.

Nodes ask here for folders, report progress here, and are cancelled here.
"""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from ..wuerstchen_core.preview import LinearMap
from ..wuerstchen_core.sampling import Callback, StepInfo

if TYPE_CHECKING:
    from PIL import Image

# Folders of weights; the demo checkpoint lies in the package's own `models/`.
MODELS_FOLDER = "wuerstchen"
BUNDLED_MODELS = Path(__file__).resolve().parent.parent / "models"
DEMO = "wuerstchen-demo"


class PreviewMaps(Protocol):
    """Which colours latents stand for, by `preview.key_of` the stage that makes them."""

    def lookup(self, key: str) -> LinearMap | None: ...

    def learn(self, key: str, latents: Tensor, pixels: Tensor) -> None:
        """Latents B×C×h×w as wires carry them, and the pictures B×3×H×W in [0, 1] they became."""
        ...


class Surroundings(Protocol):
    """What a host gives to the nodes while a graph runs."""

    @property
    def previews(self) -> PreviewMaps | None:
        """None where nobody looks at previews."""
        ...

    def models_dirs(self, kind: str) -> list[Path]:
        """Folders to search for weights of a kind ("wuerstchen", "vae", …), best first."""
        ...

    def input_dir(self) -> Path: ...

    def output_dir(self) -> Path: ...

    def temp_dir(self) -> Path: ...

    def progress(self, value: int, total: int, preview: "Image.Image | None" = None) -> None:
        """Reports that `value` of `total` steps are done. Raises what cancels, when cancelled."""
        ...

    def check_cancelled(self) -> None:
        """Raises what cancels (`errors.Cancelled`, or ComfyUI's own), when cancelled."""
        ...


class PlainSurroundings:
    """A script that calls nodes as functions: nothing to report to, nobody who cancels."""

    previews: PreviewMaps | None = None

    def models_dirs(self, kind: str) -> list[Path]:
        return []

    def input_dir(self) -> Path:
        return Path.cwd()

    def output_dir(self) -> Path:
        return Path.cwd()

    def temp_dir(self) -> Path:
        return Path(tempfile.gettempdir())

    def progress(self, value: int, total: int, preview: "Image.Image | None" = None) -> None:
        pass

    def check_cancelled(self) -> None:
        pass


class ComfySurroundings:
    """ComfyUI's folders, progress bar and interrupt."""

    previews: PreviewMaps | None = None

    def __init__(self) -> None:
        import comfy.model_management  # pyright: ignore[reportMissingImports]
        import comfy.utils  # pyright: ignore[reportMissingImports]
        import folder_paths  # pyright: ignore[reportMissingImports]

        self._management = comfy.model_management
        self._utils = comfy.utils
        self._paths = folder_paths
        self._bar: Any = None

    def models_dirs(self, kind: str) -> list[Path]:
        known = self._paths.folder_names_and_paths.get(kind)
        folders = [Path(folder) for folder in known[0]] if known else []
        return [*folders, Path(self._paths.models_dir) / kind]

    def input_dir(self) -> Path:
        return Path(self._paths.get_input_directory())

    def output_dir(self) -> Path:
        return Path(self._paths.get_output_directory())

    def temp_dir(self) -> Path:
        return Path(self._paths.get_temp_directory())

    def progress(self, value: int, total: int, preview: "Image.Image | None" = None) -> None:
        self.check_cancelled()
        shown = ("JPEG", preview, None) if preview is not None else None
        if self._bar is None:  # one bar for all steps: it limits how often it reports
            self._bar = self._utils.ProgressBar(total)
        self._bar.update_absolute(value, total, shown)

    def check_cancelled(self) -> None:
        self._management.throw_exception_if_processing_interrupted()


_current: ContextVar[Surroundings] = ContextVar("wuerstchen_surroundings")


def surroundings() -> Surroundings:
    """The host's, where one runs the node; else ComfyUI's; else plain ones."""
    current = _current.get(None)
    if current is not None:
        return current
    return ComfySurroundings() if inside_comfyui() else PlainSurroundings()


@contextmanager
def use(given: Surroundings) -> Iterator[None]:
    """Makes `given` the surroundings of the code inside."""
    token = _current.set(given)
    try:
        yield
    finally:
        _current.reset(token)


def inside_comfyui() -> bool:
    """Whether ComfyUI itself has been started in this process."""
    return "comfy.model_management" in sys.modules and "folder_paths" in sys.modules


def step_callback(paint: "Callable[[StepInfo], Image.Image | None] | None" = None) -> Callback:
    """The samplers' callback: progress, preview and cancel after each step."""
    around = surroundings()

    def report(info: StepInfo) -> None:
        around.progress(info.step + 1, info.steps, paint(info) if paint else None)

    return report


def weight_roots() -> list[Path]:
    """Where folders of weights are looked for, best first; the bundled demo comes last."""
    given = (Path(os.path.abspath(folder)) for folder in surroundings().models_dirs(MODELS_FOLDER))
    return list(dict.fromkeys([*given, BUNDLED_MODELS]))


def compute_device() -> torch.device | None:
    """ComfyUI's choice, which its command line can change; None leaves it to the loaders."""
    if not inside_comfyui():
        return None
    import comfy.model_management  # pyright: ignore[reportMissingImports]

    return comfy.model_management.get_torch_device()
