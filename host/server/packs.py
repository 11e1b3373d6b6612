"""A pack: one folder of nodes, with what the canvas shows of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..registry import OWN_PACK

# Where packs keep their workflows; people use all of these names.
EXAMPLE_FOLDERS = ("example_workflows", "example", "examples", "workflow", "workflows")


@dataclass(frozen=True)
class Pack:
    """`name` is the pack's part of URLs. `folder` is None for a pack that is a single file;
    `web` holds its scripts for the canvas and, in `docs`, the help pages of its nodes."""

    name: str
    folder: Path | None = None
    web: Path | None = None

    @property
    def python_module(self) -> str:
        return f"custom_nodes.{self.name}"

    @property
    def locales(self) -> Path | None:
        return self._subfolder("locales")

    @property
    def subgraphs(self) -> Path | None:
        return self._subfolder("subgraphs")

    @property
    def examples(self) -> list[Path]:
        return [found for name in EXAMPLE_FOLDERS if (found := self._subfolder(name))]

    def _subfolder(self, name: str) -> Path | None:
        if self.folder is None or not (self.folder / name).is_dir():
            return None
        return self.folder / name


def own_pack() -> Pack:
    root = Path(__file__).resolve().parents[2]
    return Pack(OWN_PACK, folder=root, web=root / "web")
