"""The switches of speed and memory on the command line, which `run` and `serve` share."""

from __future__ import annotations

import argparse
from dataclasses import fields

from ..wuerstchen_core.optimize import COMPILE, RESIDENCY, STORAGE, Optimization


def add_switches(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "speed and memory",
        "for each part that no Würstchen Optimize node of the graph speaks for",
    )
    preset = Optimization()
    group.add_argument(
        "--compile",
        choices=COMPILE,
        default=preset.compile,
        help="blocks: compile each kind of block once; cuda_graphs: also replay a step without "
        "Python (%(default)s)",
    )
    group.add_argument(
        "--storage",
        choices=STORAGE,
        default=preset.storage,
        help="what the large layers' weights are kept in (%(default)s)",
    )
    group.add_argument(
        "--residency",
        choices=RESIDENCY,
        default=preset.residency,
        help="where weights lie: on the GPU, there while their part runs, or brought layer by "
        "layer (%(default)s)",
    )
    group.add_argument(
        "--step-cache",
        type=float,
        default=preset.step_cache,
        metavar="SHARE",
        help="skip the model where a step's input differs by less than this from the last computed "
        "one's (%(default)s)",
    )
    group.add_argument(
        "--guidance-end",
        type=float,
        default=preset.guidance_end,
        metavar="SHARE",
        help="the share of the steps, from the first, that guidance takes part in (%(default)s)",
    )


def read_switches(arguments: argparse.Namespace) -> Optimization:
    """Raises SettingError for values out of range and for switches that exclude each other."""
    return Optimization(**{one.name: getattr(arguments, one.name) for one in fields(Optimization)})
