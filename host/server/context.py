"""What every route of one running server shares."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from aiohttp import web

from ..folders import Folders
from ..registry import Nodes
from .hub import Hub
from .log_lines import LogLines
from .packs import Pack
from .store import JobStore
from .worker import Worker


@dataclass(frozen=True)
class Host:
    """`user` holds settings, saved workflows and the job database; `packs` starts with our own."""

    folders: Folders
    user: Path
    nodes: Nodes
    packs: tuple[Pack, ...]
    store: JobStore
    worker: Worker
    hub: Hub
    log: LogLines
    settings_lock: Lock = field(default_factory=Lock)  # one change of the settings at a time


HOST = web.AppKey("host", Host)


def host_of(request: web.Request) -> Host:
    return request.app[HOST]
