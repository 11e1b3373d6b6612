"""The subcommands: each module has `add_parser(subparsers)`, which sets `handler`."""

from __future__ import annotations

from types import ModuleType

from . import convert, inspect, merge, run, serve, train

COMMANDS: tuple[ModuleType, ...] = (run, serve, convert, inspect, merge, train)
