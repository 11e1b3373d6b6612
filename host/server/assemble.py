"""Puts a server together from its settings."""

from __future__ import annotations

import logging
import re
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from ...nodes.preview_store import PreviewStore
from ...wuerstchen_core.errors import WuerstchenError
from ...wuerstchen_core.files import PARTIAL_PREFIX
from ...wuerstchen_core.folder_lock import FolderInUse, clean_output, folder_lock
from ...wuerstchen_core.optimize import Optimization
from ..executor import Executor
from ..folders import Folders
from ..registry import Nodes, default_nodes
from .app import make_app
from .context import Host
from .custom_nodes import load_custom_nodes
from .guard import Guard, is_loopback
from .hub import Hub
from .log_lines import LogLines
from .packs import own_pack
from .store import JobStore
from .worker import Worker

DATABASE = "wuerstchen.db"
PREVIEW_MAPS = "previews.json"
TOKEN = re.compile(r"[A-Za-z0-9._~-]{8,200}")
TOKEN_LENGTHS = "8 to 200"
PACKAGE = __name__.split(".", maxsplit=1)[0]


@dataclass(frozen=True)
class ServeSettings:
    """What the command line of `wuerstchen serve` says."""

    host: str
    port: int
    data: Path
    models: tuple[Path, ...] = ()
    custom_nodes: bool = False
    token: str | None = None
    no_auth: bool = False
    allowed_hosts: tuple[str, ...] = ()
    skip_unfinished: bool = False
    optimization: Optimization = Optimization()


@contextmanager
def assemble(settings: ServeSettings, nodes: Nodes | None = None) -> Iterator[web.Application]:
    """The application over its data folder, which is held until the end; `nodes` replaces the
    known nodes.

    Raises WuerstchenError for settings that cannot work.
    """
    guard = _guard(settings)
    folders, user = _make_folders(settings)
    log = LogLines()
    package_log = logging.getLogger(PACKAGE)
    level_before = package_log.level
    package_log.setLevel(logging.INFO)
    package_log.addHandler(log)
    try:
        with _held(user, settings.data):
            yield make_app(_host(settings, nodes, folders, user, log), guard)
    finally:
        package_log.removeHandler(log)
        package_log.setLevel(level_before)


@contextmanager
def _held(user: Path, data: Path) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            stack.enter_context(folder_lock(user, wait=False))
        except FolderInUse:
            raise WuerstchenError(
                f"Another wuerstchen serve works in '{data}'; stop it, or give this one "
                "another --data folder."
            ) from None
        except OSError as error:
            raise _unwritable(error, user) from error
        yield


def _guard(settings: ServeSettings) -> Guard:
    if not is_loopback(settings.host) and not settings.token and not settings.no_auth:
        raise WuerstchenError(
            f"--host {settings.host} lets other machines in: set a --token that they must know, "
            "or say --no-auth if everyone who can reach this server may use it."
        )
    if settings.token and not TOKEN.fullmatch(settings.token):
        raise WuerstchenError(
            f"--token must be {TOKEN_LENGTHS} letters, digits, '-', '_', '.' or '~'."
        )
    return Guard.for_address(settings.host, settings.allowed_hosts, settings.token)


def _make_folders(settings: ServeSettings) -> tuple[Folders, Path]:
    for folder in settings.models:
        if not folder.is_dir():
            raise WuerstchenError(f"--models '{folder}' is not a folder; name one that exists.")
    data = settings.data
    user = data / "user"
    folders = Folders(
        input=data / "input",
        output=data / "output",
        temp=user / "temp",  # cleared at each start, so not a folder that may be somebody else's
        models=(*settings.models, data / "models"),
    )
    try:
        for folder in (folders.input, folders.output, folders.temp, user):
            folder.mkdir(parents=True, exist_ok=True)
        clean_output(folders.output)
        clean_output(folders.input)
    except OSError as error:
        raise _unwritable(error, data) from error
    return folders, user


def _unwritable(error: OSError, folder: Path) -> WuerstchenError:
    return WuerstchenError(
        f"'{error.filename or folder}' cannot be written ({error.strerror}); choose another --data."
    )


def _host(
    settings: ServeSettings, nodes: Nodes | None, folders: Folders, user: Path, log: LogLines
) -> Host:
    nodes = nodes or default_nodes()
    packs = [own_pack()]
    if settings.custom_nodes:
        nodes, more = load_custom_nodes(settings.data / "custom_nodes", nodes)
        packs += more
    for leftover in user.rglob(f"{PARTIAL_PREFIX}*"):  # of a killed server; nobody else writes here
        leftover.unlink(missing_ok=True)
    store = _open_store(user, try_again=not settings.skip_unfinished)
    _forget_previews(folders.temp, store)
    hub = Hub()
    previews = PreviewStore(user / PREVIEW_MAPS)
    executor = Executor(
        nodes.classes, folders, previews=previews, optimization=settings.optimization
    )
    worker = Worker(executor, store, hub.send)
    return Host(folders, user, nodes, tuple(packs), store, worker, hub, log)


def _open_store(user: Path, try_again: bool) -> JobStore:
    try:
        return JobStore(user / DATABASE, try_again)
    except sqlite3.Error as error:
        raise WuerstchenError(
            f"'{user / DATABASE}' cannot be opened ({error}); is the disk full, or is it not ours?"
        ) from error


def _forget_previews(temp: Path, store: JobStore) -> None:
    """Removes shown pictures that no prompt of the history shows any more."""
    shown = {
        (one.get("subfolder", ""), one.get("filename"))
        for outputs in store.outputs_in_history()
        for ui in outputs.values()
        for items in ui.values()
        if isinstance(items, list)
        for one in items
        if isinstance(one, dict) and one.get("type") == "temp"
    }
    for path in temp.rglob("*"):
        place = path.parent.relative_to(temp).as_posix()
        if path.is_file() and ("" if place == "." else place, path.name) not in shown:
            path.unlink(missing_ok=True)
