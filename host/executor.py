"""Runs validated prompts. One `Executor` keeps the cache; each `run` is one prompt."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from threading import Event
from typing import Any
from uuid import uuid4

import torch

from ..nodes.runtime import PreviewMaps
from ..wuerstchen_core.optimize import Optimization
from .cache import CacheLimits, OutputCache
from .declarations import NodeRegistry, Prompt
from .folders import Folders, HostSurroundings
from .instances import Instances
from .messages import OnEvent
from .report import RunResult
from .run import Run


def _ignore(kind: str, data: dict[str, Any]) -> None:
    """The default listener."""


class Executor:
    """Owned by one thread at a time; only `cancel` events may come from others."""

    def __init__(
        self,
        registry: NodeRegistry,
        folders: Folders,
        limits: CacheLimits | None = None,
        previews: PreviewMaps | None = None,
        optimization: Optimization | None = None,
    ) -> None:
        self.registry = registry
        self.folders = folders
        self.previews = previews
        self.optimization = optimization or Optimization()
        self.cache = OutputCache(limits or CacheLimits())
        self._instances = Instances()

    def run(
        self,
        prompt: Prompt,
        outputs: Sequence[str],
        *,
        prompt_id: str | None = None,
        extra_data: Mapping[str, Any] | None = None,
        on_event: OnEvent = _ignore,
        cancel: Event | None = None,
    ) -> RunResult:
        """Runs what `outputs` need and returns how it went; raises only for its own mistakes.

        `outputs` come from `validate`. Setting `cancel` stops the run at the next step of the
        node at work. Events come in the caller's thread, which must have no event loop running.
        """
        extra_data = extra_data or {}
        # A setting of the canvas; any other method of ComfyUI's means previews as they are here.
        shows_previews = extra_data.get("preview_method") != "none"
        run = Run(
            # The nodes may keep or change the prompt they are given; the caller's stays as it is.
            prompt=copy.deepcopy(prompt),
            registry=self.registry,
            surroundings=HostSurroundings(
                self.folders,
                cancel or Event(),
                previews=self.previews if shows_previews else None,
                optimization=self.optimization,
            ),
            cache=self.cache,
            instances=self._instances,
            prompt_id=prompt_id or str(uuid4()),
            extra_data=extra_data,
            on_event=on_event,
        )
        with torch.inference_mode():
            result = run.execute(outputs)
        self._instances.keep_only(prompt)
        return result

    def free(self) -> None:
        """Forgets every cached output and node object."""
        self.cache.clear()
        self._instances.clear()
