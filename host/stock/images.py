"""Pictures: loading, saving, previewing."""

from __future__ import annotations

import json
import random
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image, ImageOps, ImageSequence, PngImagePlugin

from ...nodes.runtime import surroundings
from ..graph_file import UNREADABLE_PICTURE
from .reading import InputFileError, file_hash, find_input, list_inputs
from .saving import fill_tokens, save_numbered

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm"})
# Only formats that Pillow decodes itself: a file from elsewhere must not start other programs.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
MAX_PIXELS = 1 << 26  # of all frames together


class LoadImage:
    """IMAGE B×H×W×3 in [0, 1] (B frames) and MASK B×H×W, 1 where the picture is transparent.

    The mask of a picture that cannot be transparent has 64×64 zeros, as in ComfyUI.
    """

    DESCRIPTION = "Loads a picture from the input folder."
    SEARCH_ALIASES: ClassVar[list[str]] = [
        "load image",
        "open image",
        "import image",
        "image input",
        "upload image",
        "read image",
        "image loader",
    ]
    ESSENTIALS_CATEGORY = "Basics"
    CATEGORY = "image"
    RETURN_TYPES = ("IMAGE", "MASK")
    FUNCTION = "load_image"
    # A person at the command line may give any file of his here.
    FILE_INPUTS = frozenset({"image"})

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        options = {"image_upload": True, "tooltip": "The picture, a file in the input folder."}
        return {"required": {"image": (list_inputs(SUFFIXES), options)}}

    def load_image(self, image: str) -> tuple[torch.Tensor, torch.Tensor]:
        try:
            with Image.open(find_input(image), formats=FORMATS) as file:
                frames = list(_frames(file))
        except InputFileError:
            raise
        except UNREADABLE_PICTURE as error:
            raise _unreadable(image) from error
        batch = torch.stack([picture for picture, _ in frames])
        if all(mask is None for _, mask in frames):
            return batch, torch.zeros(len(frames), 64, 64)
        opaque = torch.zeros(batch.shape[1:3])
        return batch, torch.stack([opaque if mask is None else mask for _, mask in frames])

    @classmethod
    def IS_CHANGED(cls, image: str) -> str:
        return file_hash(image)

    @classmethod
    def VALIDATE_INPUTS(cls, image: str) -> bool | str:
        try:
            with Image.open(find_input(image), formats=FORMATS):
                return True
        except InputFileError as error:
            return str(error)
        except UNREADABLE_PICTURE:
            return str(_unreadable(image))


def _unreadable(name: str) -> InputFileError:
    return InputFileError(
        f"'{name}' is not a whole picture (or too large); use a PNG, JPEG or WebP file."
    )


def _frames(file: Image.Image) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
    """(H×W×3, mask H×W or None) for each frame that has the first one's size."""
    pixels = 0
    size: tuple[int, int] | None = None
    # Further pages of a TIFF, or further views in a phone's JPEG (MPO), are not a batch.
    for raw in [file] if file.format in ("MPO", "TIFF") else ImageSequence.Iterator(file):
        pixels += raw.width * raw.height
        if pixels > MAX_PIXELS:  # before anything is decoded
            raise ValueError("too many pixels")
        frame = ImageOps.exif_transpose(raw)
        size = size or frame.size
        if frame.size == size:
            yield _pixels(frame)


def _pixels(frame: Image.Image) -> tuple[torch.Tensor, torch.Tensor | None]:
    if frame.mode.startswith("I"):  # 16 bits of grey, which convert() would clip to 8
        grey = np.asarray(frame, dtype=np.float32)[..., None] / 65535.0
        return torch.from_numpy(grey).clamp(0, 1).expand(-1, -1, 3), None
    if frame.mode == "P" or "transparency" in frame.info:
        frame = frame.convert("RGBA")
    picture = torch.from_numpy(np.array(frame.convert("RGB"), dtype=np.float32) / 255.0)
    if "A" not in frame.getbands():
        return picture, None
    alpha = np.array(frame.getchannel("A"), dtype=np.float32) / 255.0
    return picture, 1.0 - torch.from_numpy(alpha)


class SaveImage:
    DESCRIPTION = "Saves pictures as PNG files that carry the graph that made them."
    SEARCH_ALIASES: ClassVar[list[str]] = [
        "save",
        "save image",
        "export image",
        "output image",
        "write image",
        "download",
    ]
    ESSENTIALS_CATEGORY = "Basics"
    CATEGORY = "image"
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("images",)
    FUNCTION = "save_images"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        prefix = {
            "default": "ComfyUI",
            "tooltip": "Start of the file name, with subfolders if you like; "
            "knows %date:yyyy-MM-dd%, %width%, %height% and %Node title.input%.",
        }
        return {
            "required": {
                "images": ("IMAGE", {"tooltip": "The pictures to save."}),
                "filename_prefix": ("STRING", prefix),
            },
            "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"},
        }

    def save_images(
        self,
        images: torch.Tensor,
        filename_prefix: str = "ComfyUI",
        prompt: dict[str, Any] | None = None,
        extra_pnginfo: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        saved = _save_pngs(
            surroundings().output_dir(), images, filename_prefix, 4, prompt, extra_pnginfo
        )
        return {
            "ui": {"images": [one.as_ui("output") for one in saved]},
            "result": (images,),
        }


class PreviewImage:
    DESCRIPTION = "Shows pictures without saving them to the output folder."
    SEARCH_ALIASES: ClassVar[list[str]] = [
        "preview",
        "preview image",
        "show image",
        "view image",
        "display image",
        "image viewer",
    ]
    ESSENTIALS_CATEGORY = "Basics"
    CATEGORY = "image"
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("images",)
    FUNCTION = "preview_images"
    OUTPUT_NODE = True

    def __init__(self) -> None:
        # A browser must not show another session's picture of the same name from its cache.
        letters = "".join(random.choices(string.ascii_lowercase, k=5))
        self._prefix = f"ComfyUI_temp_{letters}"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"images": ("IMAGE", {"tooltip": "The pictures to show."})},
            "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"},
        }

    def preview_images(
        self,
        images: torch.Tensor,
        prompt: dict[str, Any] | None = None,
        extra_pnginfo: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        saved = _save_pngs(
            surroundings().temp_dir(), images, self._prefix, 1, prompt, extra_pnginfo
        )
        return {"ui": {"images": [one.as_ui("temp") for one in saved]}, "result": (images,)}


def _save_pngs(
    folder: Path,
    images: torch.Tensor,
    prefix: str,
    compress_level: int,
    prompt: dict[str, Any] | None,
    extra_pnginfo: dict[str, Any] | None,
) -> list[Any]:
    """images: B×H×W×C in [0, 1], C of 1, 3 or 4; cut there and down to the next of 256 levels."""
    about = PngImagePlugin.PngInfo()
    if prompt is not None:
        about.add_text("prompt", json.dumps(prompt))
    for key, value in (extra_pnginfo or {}).items():
        about.add_text(key, json.dumps(value))

    height, width = images.shape[1:3]
    filled = fill_tokens(prefix, width, height, prompt)
    saved = []
    for number, image in enumerate(images):
        surroundings().check_cancelled()
        levels = (image.detach().float().cpu().nan_to_num().clamp(0, 1) * 255).to(torch.uint8)
        picture = Image.fromarray(levels.squeeze(-1).numpy())  # C=1: H×W

        def write(path: Path, picture: Image.Image = picture) -> None:
            picture.save(path, format="PNG", pnginfo=about, compress_level=compress_level)

        name = filled.replace("%batch_num%", str(number))
        saved.append(save_numbered(folder, name, ".png", write))
    return saved


NODES = {
    "LoadImage": (LoadImage, "Load Image"),
    "SaveImage": (SaveImage, "Save Image"),
    "PreviewImage": (PreviewImage, "Preview Image"),
}
