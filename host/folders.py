"""Where a host keeps things, and what it tells the nodes about it while a graph runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from ..wuerstchen_core.errors import Cancelled
from ..wuerstchen_core.optimize import Optimization

if TYPE_CHECKING:
    from PIL import Image

    from ..nodes.runtime import PreviewMaps

ProgressHook = Callable[[int, int, "Image.Image | None"], None]


@dataclass(frozen=True)
class Folders:
    """The folders of one host.

    `models` are searched before the default ones. `extra_inputs` maps a name that a graph may use
    for a file outside `input` to that file: only what the user named on the command line.
    """

    input: Path
    output: Path
    temp: Path
    models: tuple[Path, ...] = ()
    extra_inputs: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class HostSurroundings:
    """The `nodes.runtime.Surroundings` of this host, for one node call or for a validation."""

    folders: Folders
    cancel: Event = field(default_factory=Event)
    on_progress: ProgressHook | None = None
    previews: PreviewMaps | None = None
    optimization: Optimization = Optimization()

    def models_dirs(self, kind: str) -> list[Path]:
        # One set of folders for every kind: what a file is comes from its keys.
        return [folder for folder in self.folders.models if folder.is_dir()]

    def input_dir(self) -> Path:
        return self.folders.input

    def output_dir(self) -> Path:
        return self.folders.output

    def temp_dir(self) -> Path:
        return self.folders.temp

    def progress(self, value: int, total: int, preview: Image.Image | None = None) -> None:
        self.check_cancelled()
        if self.on_progress is not None:
            self.on_progress(value, total, preview)

    def check_cancelled(self) -> None:
        if self.cancel.is_set():
            raise Cancelled

    @property
    def extra_inputs(self) -> Mapping[str, Path]:
        return self.folders.extra_inputs
