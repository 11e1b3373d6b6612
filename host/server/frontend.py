"""Where the canvas itself lies: the package comfyui-frontend-package."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from ...wuerstchen_core.errors import WuerstchenError

MODULE = "comfyui_frontend_package"


@cache
def frontend_folder() -> Path:
    """Raises WuerstchenError when the package is not installed."""
    spec = find_spec(MODULE)
    folder = Path(spec.origin).with_name("static") if spec and spec.origin else Path()
    if not (folder / "index.html").is_file():
        raise WuerstchenError(
            "The canvas (comfyui-frontend-package) is not installed; install it with "
            "pip install comfyui-wuerstchen[host]."
        )
    return folder


@cache
def frontend_version() -> str:
    return version(MODULE.replace("_", "-"))
