"""`wuerstchen merge A B OUT`: priors, and LoRAs on them, as one folder of weights."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...wuerstchen_core.checkpoints.configs import STAGE_C
from ...wuerstchen_core.checkpoints.folder import find_parts
from ...wuerstchen_core.checkpoints.load import Weights, open_weights
from ...wuerstchen_core.errors import SettingError, WuerstchenError
from ...wuerstchen_core.lora import (
    NO_CHANGES,
    Changed,
    match,
    nothing_fits,
    read_lora,
    rest_of,
    together,
)
from ...wuerstchen_core.merge import merged, write_stage_c
from ...wuerstchen_core.residency import BY_NAME
from ..exit_codes import BAD_REQUEST, DONE

NONE = "-"
_LARGEST_STRENGTH = 10  # as Load Würstchen LoRA has it


def add_parser(subparsers: Any) -> None:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "merge",
        help="priors and LoRAs as one prior",
        description="Writes A + ratio · (B - A), with --difference A + ratio · (B - C), and the "
        "LoRAs on it, as a folder that the loaders and diffusers open. A, B and C are priors: a "
        "file, a folder with config.json, or a folder of weights.",
    )
    parser.add_argument("a", type=Path, metavar="A")
    parser.add_argument("b", metavar="B", help=f"{NONE} for none, to put LoRAs on A alone")
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder to write; must be new")
    parser.add_argument(
        "--ratio", type=float, default=0.5, metavar="R", help="0 is A, 1 is B (%(default)s)"
    )
    parser.add_argument("--difference", type=Path, metavar="C", help="what B was trained from")
    parser.add_argument(
        "--lora",
        action="append",
        default=[],
        metavar="FILE[:STRENGTH]",
        dest="loras",
        help="a LoRA to put on the result, strength 1 unless said otherwise; repeatable",
    )
    parser.add_argument(
        "--dtype", choices=list(BY_NAME), default="float16", help="to save in (%(default)s)"
    )
    parser.set_defaults(handler=handle)


def handle(arguments: argparse.Namespace) -> int:
    try:
        weights, made_of = _merged(arguments)
        weights, made_of = _with_loras(weights, made_of, arguments.loras)
        write_stage_c(weights, arguments.out, BY_NAME[arguments.dtype], made_of)
    except WuerstchenError as error:
        print(error, file=sys.stderr)
        return BAD_REQUEST
    print(arguments.out)
    return DONE


def _merged(arguments: argparse.Namespace) -> tuple[Weights, str]:
    """The weights, computed when they are written, and what they are made of."""
    a, ratio = _prior(arguments.a), arguments.ratio
    if arguments.b == NONE:
        if arguments.difference:
            raise WuerstchenError("--difference needs B, what was trained from C.")
        return a, arguments.a.name
    b = _prior(Path(arguments.b))
    names = arguments.a.name, Path(arguments.b).name
    if arguments.difference is None:
        return merged(a, b, ratio), f"{1 - ratio:g} × {names[0]} + {ratio:g} × {names[1]}"
    c = _prior(arguments.difference)
    words = f"{names[0]} + {ratio:g} × ({names[1]} - {arguments.difference.name})"
    return merged(a, b, ratio, c), words


def _prior(path: Path) -> Weights:
    """A prior's file or folder, or a folder of weights with one in it."""
    if path.is_dir() and not (path / "config.json").is_file():
        path = find_parts(path).require("stage_c")
    return open_weights(STAGE_C, path)


def _with_loras(weights: Weights, made_of: str, loras: list[str]) -> tuple[Weights, str]:
    changes = NO_CHANGES
    for given in loras:
        path, strength = _split(given)
        if not abs(strength) <= _LARGEST_STRENGTH:
            raise SettingError(
                f"the strength {strength:g} of {path.name} is not between -{_LARGEST_STRENGTH} and "
                f"{_LARGEST_STRENGTH}."
            )
        lora = read_lora(path)
        found = match(lora, weights.state)
        if not found.modules:
            raise nothing_fits(lora, [found], "Stage C")
        print(f"{path.name}: applied {len(found.modules)} of {len(lora.modules)}")
        for sentence in (*found.misfits, *rest_of(lora, [found])):
            print(f"  not applied: {sentence}")
        changes = together(changes, found.changes(strength))
        made_of = f"{made_of} + {strength:g} × {path.name}"
    return (
        replace(weights, state=Changed(weights.state, changes)) if changes else weights
    ), made_of


def _split(given: str) -> tuple[Path, float]:
    """FILE[:STRENGTH]; a colon that no number follows belongs to the name."""
    name, _, strength = given.rpartition(":")
    try:
        return Path(name or given), float(strength) if name else 1.0
    except ValueError:
        return Path(given), 1.0
