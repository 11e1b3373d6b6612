"""Packs of nodes by other people, from a folder `custom_nodes`."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from ..registry import OWN_PACK, Nodes
from .packs import Pack

logger = logging.getLogger(__name__)

# What only ComfyUI itself brings along.
COMFYUI_MODULES = frozenset(
    {
        "app",
        "comfy",
        "comfy_api",
        "comfy_config",
        "comfy_execution",
        "comfy_extras",
        "execution",
        "folder_paths",
        "latent_preview",
        "node_helpers",
        "nodes",
        "server",
    }
)


class UnusablePack(Exception):
    """A pack that is left out; the message says why."""


def load_custom_nodes(folder: Path, nodes: Nodes) -> tuple[Nodes, list[Pack]]:
    """Imports every pack in `folder`, which runs its code: (`nodes` and theirs, the packs).

    A pack that cannot be used is left out with a warning, and so is a node whose id exists.
    """
    packs = []
    for path in _candidates(folder):
        name = path.stem if path.is_file() else path.name
        try:
            module = _import(path)
            theirs = _node_classes(module)
        except UnusablePack as problem:
            logger.warning("custom nodes '%s' are left out: %s", name, problem)
            continue
        if taken := sorted(theirs.keys() & nodes.classes.keys()):
            logger.warning(
                "custom nodes '%s': nodes of these ids exist already and stay as they are: %s",
                name,
                ", ".join(taken),
            )
        fresh = {node_id: one for node_id, one in theirs.items() if node_id not in taken}
        names = getattr(module, "NODE_DISPLAY_NAME_MAPPINGS", None) or {}
        titles = {node_id: str(names[node_id]) for node_id in fresh if node_id in names}
        nodes = nodes.with_pack(f"custom_nodes.{name}", fresh, titles)
        logger.info("custom nodes '%s': %s", name, ", ".join(fresh) or "only scripts")
        packs.append(Pack(name, path if path.is_dir() else None, _web_folder(path, module)))
    return nodes, packs


def _candidates(folder: Path) -> Iterator[Path]:
    """Folders and single `.py` files, without what is hidden or switched off."""
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    for path in paths:
        if path.name.startswith((".", "__")) or path.name.endswith(".disabled"):
            continue
        if path.name == OWN_PACK:
            logger.warning("custom nodes '%s' are left out: this host has them itself", OWN_PACK)
        elif path.suffix == ".py" or (path / "__init__.py").is_file():
            yield path


def _import(path: Path) -> ModuleType:
    """Raises UnusablePack."""
    # Dots would make parent packages of its parts, and relative imports would look for those.
    name = str(path).replace(".", "_x_")
    file, parts = (path / "__init__.py", [str(path)]) if path.is_dir() else (path, None)
    spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=parts)
    if spec is None or spec.loader is None:
        raise UnusablePack("they are not Python code")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        for loaded in [key for key in sys.modules if key == name or key.startswith(f"{name}.")]:
            del sys.modules[loaded]
        raise UnusablePack(_reason(error, path)) from error
    return module


def _reason(error: BaseException, path: Path) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.split(".", maxsplit=1)[0]
        if package in COMFYUI_MODULES:
            return f"they need ComfyUI's own package '{package}'"
        return f"they need the Python package '{package}', which is not installed"
    first_line = next(iter(str(error).splitlines()), "")
    # The line is shown on the canvas, which does not tell where things lie on this disk.
    where = first_line.replace(str(path.parent), path.parent.name)
    return f"they fail with {type(error).__name__}: {where}"


def _node_classes(module: ModuleType) -> dict[str, type]:
    """Raises UnusablePack."""
    table: Any = getattr(module, "NODE_CLASS_MAPPINGS", None)
    if table is None and hasattr(module, "comfy_entrypoint"):
        raise UnusablePack("they are of ComfyUI's V3 kind and need ComfyUI itself")
    if not isinstance(table, dict) or not all(
        isinstance(node_id, str) and isinstance(one, type) for node_id, one in table.items()
    ):
        raise UnusablePack("they have no NODE_CLASS_MAPPINGS from ids to classes")
    return table


def _web_folder(path: Path, module: ModuleType) -> Path | None:
    """A pack's own choice, relative to where it lies."""
    given = getattr(module, "WEB_DIRECTORY", None)
    if not isinstance(given, str):
        return None
    web = ((path if path.is_dir() else path.parent) / given).resolve()
    return web if web.is_dir() else None
