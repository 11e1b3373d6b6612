"""`wuerstchen inspect FILE…`: what files and folders of weights are, and where they belong."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...wuerstchen_core.checkpoints.contents import weights_in
from ...wuerstchen_core.checkpoints.describe import Description, describe
from ...wuerstchen_core.errors import CheckpointError
from ..exit_codes import BAD_REQUEST, DONE

# What counts in thousands, as sizes of files do.
_UNITS = ("B", "KB", "MB", "GB")


def add_parser(subparsers: Any) -> None:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "inspect",
        help="what a file or folder of weights is",
        description="Says of files and folders of weights what they are, how many parameters they "
        "have in which dtype, in which layout, with which config, and where they belong. Only "
        "names and shapes are read.",
    )
    parser.add_argument("paths", type=Path, nargs="+", metavar="FILE", help="file or folder")
    parser.add_argument("--json", action="store_true", help="print one list of objects as JSON")
    parser.set_defaults(handler=handle)


def handle(arguments: argparse.Namespace) -> int:
    found: list[dict[str, Any]] = []
    failed = False
    for path in arguments.paths:
        for result in _looked_into(path):
            if isinstance(result, Description):
                found.append(_plain(result))
                if not arguments.json:
                    print(_words(result), end="\n\n")
            else:
                failed = True
                found.append({"path": str(path), "error": str(result)})
                if not arguments.json:
                    print(result, file=sys.stderr)
    if arguments.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    return BAD_REQUEST if failed else DONE


def _looked_into(path: Path) -> Iterator[Description | CheckpointError]:
    try:
        weights = weights_in(path)
    except OSError as error:
        yield CheckpointError(f"{path} cannot be read: {error.strerror}.")
        return
    for one in weights:
        try:
            yield from describe(one)
        except CheckpointError as error:
            yield error


def _plain(found: Description) -> dict[str, Any]:
    """What scripts read: names of fields are a contract."""
    host, comfyui = found.places or (None, None)
    return {
        "path": str(found.path),
        "kind": found.kind.name.lower(),
        "part": found.part,
        "title": found.title,
        "advice": found.advice,
        "format": found.format,
        "bytes": found.nbytes,
        "layout": found.layout or None,
        "tensors": found.tensors,
        "parameters": found.parameters,
        "dtypes": found.dtypes,
        "config": found.config,
        "config_from": found.config_from or None,
        "problem": found.problem or None,
        "folder": host,
        "comfyui_folder": comfyui,
    }


def _words(found: Description) -> str:
    rows = [
        ("file", f"{found.format}, {_size(found.nbytes)}"),
        ("layout", found.layout),
        ("tensors", f"{found.tensors:,}, {found.parameters:,} parameters in {_dtypes(found)}"),
        ("config", _config(found)),
        ("belongs", f"in {' or, in ComfyUI, '.join(found.places)}" if found.places else ""),
        ("use", found.advice),
        ("problem", found.problem),
    ]
    lines = [f"  {name:<8} {text}" for name, text in rows if text]
    return "\n".join([str(found.path), f"  {found.title}", *lines])


def _size(nbytes: float) -> str:
    for unit in _UNITS:
        if nbytes < 1000 or unit == _UNITS[-1]:
            break
        nbytes /= 1000
    return f"{nbytes:.3g} {unit}"


def _dtypes(found: Description) -> str:
    """All dtypes, the most common first; with shares where a few values differ."""
    total = sum(found.dtypes.values()) or 1
    if len(found.dtypes) == 1:
        return next(iter(found.dtypes))
    return ", ".join(f"{name} ({count / total:.1%})" for name, count in found.dtypes.items())


def _config(found: Description) -> str:
    if not found.config:
        return ""
    fields = ", ".join(f"{name} {_value(value)}" for name, value in found.config.items())
    return f"{fields} (from {found.config_from})"


def _value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_value, value)) + "]"
    return str(value)
