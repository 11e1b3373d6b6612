"""Latents as files, in ComfyUI's own `.latent` format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ...nodes.runtime import surroundings
from .reading import InputFileError, file_hash, find_input, list_inputs
from .saving import fill_tokens, save_numbered

# Files of before the format had a version hold Stable Diffusion's latents unscaled.
UNVERSIONED_SCALE = 1.0 / 0.18215
EXTRAS_KEY = "latent_extras"


class SaveLatent:
    DESCRIPTION = "Saves a latent as a file that Load Latent reads."
    SEARCH_ALIASES: ClassVar[list[str]] = ["export latent"]
    CATEGORY = "model/latent"
    RETURN_TYPES = ("LATENT",)
    RETURN_NAMES = ("samples",)
    FUNCTION = "save"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        prefix = {
            "default": "latents/ComfyUI",
            "tooltip": "Start of the file name, with subfolders if you like.",
        }
        return {
            "required": {
                "samples": ("LATENT", {"tooltip": "The latent to save."}),
                "filename_prefix": ("STRING", prefix),
            },
            "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"},
        }

    def save(
        self,
        samples: dict[str, Any],
        filename_prefix: str = "latents/ComfyUI",
        prompt: dict[str, Any] | None = None,
        extra_pnginfo: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        latent = samples["samples"].detach().cpu().contiguous()
        # Keys beside the tensor, like the asked size, go along as far as JSON can hold them.
        extras = {key: _packed(value) for key, value in samples.items() if _is_plain(value)}
        about = {"prompt": json.dumps(prompt), EXTRAS_KEY: json.dumps(extras)}
        about |= {key: json.dumps(value) for key, value in (extra_pnginfo or {}).items()}

        def write(path: Path) -> None:
            tensors = {"latent_tensor": latent, "latent_format_version_0": torch.tensor([])}
            try:
                save_file(tensors, path, metadata=about)
            except SafetensorError as error:  # what it makes of a full disk
                raise OSError(str(error)) from error

        name = fill_tokens(filename_prefix, latent.shape[-1], latent.shape[-2], prompt)
        saved = save_numbered(surroundings().output_dir(), name, ".latent", write)
        return {"ui": {"latents": [saved.as_ui("output")]}, "result": (samples,)}


class LoadLatent:
    DESCRIPTION = "Loads a latent that Save Latent wrote, from the input folder."
    SEARCH_ALIASES: ClassVar[list[str]] = ["import latent", "open latent"]
    CATEGORY = "model/latent"
    RETURN_TYPES = ("LATENT",)
    FUNCTION = "load"
    FILE_INPUTS = frozenset({"latent"})

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        options = {"tooltip": "The latent, a .latent file in the input folder."}
        return {"required": {"latent": (list_inputs(frozenset({".latent"})), options)}}

    def load(self, latent: str) -> tuple[dict[str, Any]]:
        try:
            with safe_open(find_input(latent), framework="pt", device="cpu") as file:
                names = list(file.keys())
                scale = 1.0 if "latent_format_version_0" in names else UNVERSIONED_SCALE
                samples = file.get_tensor("latent_tensor").float() * scale
                extras = json.loads((file.metadata() or {}).get(EXTRAS_KEY, "{}"))
            kept = {key: _unpacked(value) for key, value in extras.items()}
        except (SafetensorError, OSError, ValueError, AttributeError) as error:
            raise InputFileError(
                f"'{latent}' is not a whole latent file; use one that Save Latent wrote."
            ) from error
        kept = {key: value for key, value in kept.items() if _is_plain(value)}
        return ({**kept, "samples": samples},)

    @classmethod
    def IS_CHANGED(cls, latent: str) -> str:
        return file_hash(latent)

    @classmethod
    def VALIDATE_INPUTS(cls, latent: str) -> bool | str:
        try:
            find_input(latent)
        except InputFileError as error:
            return str(error)
        return True


def _is_plain(value: Any) -> bool:
    """A number, a word, or a list or tuple of those."""
    if isinstance(value, (list, tuple)):
        return all(isinstance(one, (bool, int, float, str)) for one in value)
    return isinstance(value, (bool, int, float, str))


def _packed(value: Any) -> Any:
    return {"tuple": list(value)} if isinstance(value, tuple) else value


def _unpacked(value: Any) -> Any:
    return tuple(value["tuple"]) if isinstance(value, dict) and "tuple" in value else value


NODES = {
    "SaveLatent": (SaveLatent, "Save Latent"),
    "LoadLatent": (LoadLatent, "Load Latent"),
}
