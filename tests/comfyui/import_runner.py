"""Runs inside ComfyUI's own Python: `import_runner.py CHECKOUT PACK` imports the pack as ComfyUI
does, with every package hidden that ComfyUI's requirements do not bring, and uses its nodes. It
prints as JSON the ids of the nodes, what is hidden, which packages the import brought in that
ComfyUI itself had not, and the shape of the picture made.
"""

import importlib.abc
import importlib.metadata
import importlib.util
import json
import sys
from collections.abc import Sequence
from importlib.machinery import BuiltinImporter, FrozenImporter, ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def brought_by(requirements: Path) -> set[str]:
    """The names of the distributions that installing this file installs."""
    lines = (line.split("#")[0].strip() for line in requirements.read_text("utf-8").splitlines())
    waiting = [Requirement(line) for line in lines if line]
    found: set[str] = set()
    while waiting:
        needed = waiting.pop()
        name = canonicalize_name(needed.name)
        if name in found or (needed.marker and not needed.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        try:
            more = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        waiting += map(Requirement, more)
    return found


class Visible(importlib.abc.MetaPathFinder):
    """Finds what is installed, but for some top-level packages."""

    find_distributions = staticmethod(PathFinder.find_distributions)

    def __init__(self, hidden: set[str]) -> None:
        self.hidden = hidden

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name.split(".")[0] in self.hidden:
            return None
        return PathFinder.find_spec(name, path, target)


def hide_others(checkout: Path) -> set[str]:
    brought = brought_by(checkout / "requirements.txt")
    hidden = {
        module
        for module, owners in importlib.metadata.packages_distributions().items()
        if not any(canonicalize_name(owner) in brought for owner in owners)
    }
    sys.meta_path[:] = [BuiltinImporter, FrozenImporter, Visible(hidden)]
    return hidden


def use(nodes: dict[str, Any]) -> list[int]:
    """Runs the nodes once, as a graph would; the shape of the picture."""

    def run(node_id: str, *inputs: Any) -> Any:
        return getattr(nodes[node_id](), nodes[node_id].FUNCTION)(*inputs)

    c, b, a, text_encoder, _, image_encoder = run(
        "WuerstchenLoadPipeline", "wuerstchen-demo", "float32"
    )
    (text,) = run("WuerstchenTextEncode", text_encoder, "a red star")
    (size,) = run("WuerstchenEmptyLatent", 128, 128, 1)
    (latent,) = run("WuerstchenStageCSampler", c, text, size, 1, 1, 1.0, "ddpm", "default", 1.0)
    (latent,) = run("WuerstchenStageBSampler", b, latent, 1, 1, 0.0, "ddpm", "uniform", 1.0)
    (picture,) = run("WuerstchenStageADecode", a, latent)
    run("WuerstchenStageAEncode", a, picture)
    run("WuerstchenImageEncode", image_encoder, picture)
    return list(picture.shape)


def main() -> None:
    checkout, pack = Path(sys.argv[1]), Path(sys.argv[2])
    hidden = hide_others(checkout)
    sys.path.insert(0, str(checkout))
    sys.argv = ["main.py", "--cpu"]
    import comfy.options  # pyright: ignore[reportMissingImports]

    comfy.options.enable_args_parsing()
    import folder_paths  # pyright: ignore[reportMissingImports]

    import nodes  # noqa: F401  # pyright: ignore[reportMissingImports]

    before = set(sys.modules)
    spec = importlib.util.spec_from_file_location(str(pack), pack / "__init__.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[str(pack)] = module
    spec.loader.exec_module(module)
    new = {name for name in set(sys.modules) - before if not name.startswith(str(pack))}
    assert "wuerstchen" in folder_paths.folder_names_and_paths
    answer = {
        "nodes": sorted(module.NODE_CLASS_MAPPINGS),
        "hidden": sorted(hidden),
        "imported": sorted({name.split(".")[0] for name in new}),
    }
    with torch.inference_mode():
        answer["shape"] = use(module.NODE_CLASS_MAPPINGS)
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
