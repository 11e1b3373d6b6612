"""What every route of one running server shares."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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


HOST = web.AppKey("host", Host)


def host_of(request: web.Request) -> Host:
    return request.app[HOST]
