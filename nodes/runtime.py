"""The one seam between the nodes and what surrounds them: ComfyUI, our host, or a plain script.

Nodes ask here for folders, report progress here, and are cancelled here.
"""

import logging
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from ..wuerstchen_core.batches import is_out_of_memory
from ..wuerstchen_core.compile import CompiledBlock, outside_compiled_code
from ..wuerstchen_core.cuda_graphs import RecordedNetwork
from ..wuerstchen_core.optimize import Optimization
from ..wuerstchen_core.preview import MAPS_FILE, LinearMap
from ..wuerstchen_core.sampling import Callback, StepInfo
from .preview_store import PreviewStore

if TYPE_CHECKING:
    from PIL import Image

log = logging.getLogger(__name__)

# Folders of weights; the demo checkpoint lies in the package's own `models/`.
MODELS_FOLDER = "wuerstchen"
EMBEDDINGS = "embeddings"  # the folder of textual inversions in one of weights
BUNDLED_MODELS = Path(__file__).resolve().parent.parent / "models"
DEMO = "wuerstchen-demo"

OUT_OF_MEMORY = (
    "Out of memory. Lower batch_size, ask for a smaller width or height, or load the weights with "
    "a 16-bit dtype."
)

Network = TypeVar("Network", bound=nn.Module)

# Before these a network can be cancelled: the layers, and what runs several as one.
_LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, CompiledBlock, RecordedNetwork)


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

    @property
    def optimization(self) -> Optimization:
        """How a part runs whose graph does not say."""
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
    optimization = Optimization()

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
    """ComfyUI's folders, progress bar, previews and interrupt, for one node call."""

    optimization = Optimization()

    def __init__(self) -> None:
        import comfy.cli_args  # pyright: ignore[reportMissingImports]
        import comfy.model_management  # pyright: ignore[reportMissingImports]
        import comfy.utils  # pyright: ignore[reportMissingImports]
        import folder_paths  # pyright: ignore[reportMissingImports]

        self._cli = comfy.cli_args
        self._management = comfy.model_management
        self._utils = comfy.utils
        self._paths = folder_paths
        self._bar: Any = None

    @property
    def previews(self) -> PreviewMaps | None:
        """What pictures taught lies where no other program and no browser reads it.

        ComfyUI sets the method anew for each prompt. Its other methods decode or map latents of
        its own models, so any of them means our maps.
        """
        if self._cli.args.preview_method is self._cli.LatentPreviewMethod.NoPreviews:
            return None
        return PreviewStore(Path(self._paths.get_system_user_directory(MODELS_FOLDER)) / MAPS_FILE)

    def models_dirs(self, kind: str) -> list[Path]:
        known = self._paths.folder_names_and_paths.get(kind)
        return [Path(folder) for folder in known[0]] if known else []

    def input_dir(self) -> Path:
        return Path(self._paths.get_input_directory())

    def output_dir(self) -> Path:
        return Path(self._paths.get_output_directory())

    def temp_dir(self) -> Path:
        return Path(self._paths.get_temp_directory())

    def progress(self, value: int, total: int, preview: "Image.Image | None" = None) -> None:
        self.check_cancelled()
        shown = ("JPEG", preview, self._cli.args.preview_size) if preview is not None else None
        if self._bar is None:  # one bar for all steps: it limits how often it reports
            self._bar = self._utils.ProgressBar(total)
        self._bar.update_absolute(value, total, shown)

    def check_cancelled(self) -> None:
        self._management.throw_exception_if_processing_interrupted()

    def show(self, text: str) -> None:
        """Shows a text on the node that runs, where somebody looks at a canvas."""
        from comfy_execution.utils import (  # pyright: ignore[reportMissingImports]
            get_executing_context,
        )

        context = get_executing_context()
        canvas = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
        if context is not None and canvas is not None:
            canvas.send_progress_text(text, context.node_id)


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


def report(lines: Sequence[str]) -> None:
    """Says what a node did: in the log, and inside ComfyUI on the node."""
    for line in lines:
        log.info("%s", line)
    around = surroundings()
    if isinstance(around, ComfySurroundings):
        around.show("\n".join(lines))


def step_callback(paint: "Callable[[StepInfo], Image.Image | None] | None" = None) -> Callback:
    """The samplers' callback: progress, preview and cancel after each step."""
    around = surroundings()

    def report(info: StepInfo) -> None:
        around.progress(info.step + 1, info.steps, paint(info) if paint else None)

    return report


@contextmanager
def running(ready: Callable[[], Network]) -> Iterator[Network]:
    """A node's use of the network that `ready` gives: it can be cancelled before each layer, which
    on a slow machine is long before a step is done (a compiled network before each block, one with
    CUDA graphs before each step), and running out of memory says what helps.

    Raises torch.OutOfMemoryError, which makes ComfyUI unload what it holds.
    """

    def check(*_: object) -> None:
        surroundings().check_cancelled()

    with memory_in_words():
        network = ready()
        layers = [each for each in outside_compiled_code(network) if isinstance(each, _LAYERS)]
        hooks = [layer.register_forward_pre_hook(check) for layer in layers]
        try:
            yield network
        finally:
            for hook in hooks:
                hook.remove()


@contextmanager
def memory_in_words() -> Iterator[None]:
    """Raises torch.OutOfMemoryError that says what helps, for whatever ran out of memory."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # they hold the failed attempt's tensors
        raise torch.OutOfMemoryError(OUT_OF_MEMORY) from None


def weight_roots(kinds: Sequence[str] = (MODELS_FOLDER,)) -> list[Path]:
    """Where weights of these kinds are looked for, best first.

    The bundled demo's folder comes last of those of `MODELS_FOLDER`.
    """
    around = surroundings()
    given = [Path(os.path.abspath(f)) for kind in kinds for f in around.models_dirs(kind)]
    return list(dict.fromkeys([*given, *([BUNDLED_MODELS] if MODELS_FOLDER in kinds else [])]))


def tokenizer_folders() -> list[Path]:
    """Where a text encoder that comes alone may find a tokenizer: ComfyUI's own, and those that
    lie beside other text encoders."""
    comfyui = []
    if inside_comfyui():
        import comfy.sd1_clip  # pyright: ignore[reportMissingImports]

        comfyui = [Path(comfy.sd1_clip.__file__).with_name("sd1_tokenizer")]
    patterns = ("tokenizer", "*/tokenizer", "*/*/tokenizer")
    own = [f for root in weight_roots() for each in patterns for f in sorted(root.glob(each))]
    return [*comfyui, *own]


def embedding_folders() -> list[Path]:
    """Where textual inversions lie: in ComfyUI's folders of them, and in `embeddings` beside the
    folders of weights."""
    known = surroundings().models_dirs(EMBEDDINGS) if inside_comfyui() else []
    return [*known, *(root / EMBEDDINGS for root in weight_roots())]


def register_models_folder() -> None:
    """Makes ComfyUI list `models/wuerstchen`, after what extra_model_paths.yaml names."""
    import folder_paths  # pyright: ignore[reportMissingImports]

    usual = os.path.join(folder_paths.models_dir, MODELS_FOLDER)
    folder_paths.add_model_folder_path(MODELS_FOLDER, usual)
    suffixes = folder_paths.folder_names_and_paths[MODELS_FOLDER][1]
    suffixes.update(folder_paths.supported_pt_extensions)
