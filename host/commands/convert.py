"""`wuerstchen convert SRC DST`: the same weights in another published layout."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch

from ...wuerstchen_core.checkpoints.convert import (
    PARTS,
    STAGE_LAYOUTS,
    TEXT_LAYOUTS,
    Converted,
    convert,
)
from ...wuerstchen_core.errors import WuerstchenError
from ..exit_codes import BAD_REQUEST, DONE, FAILED

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def add_parser(subparsers: Any) -> None:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "convert",
        help="weights in another layout",
        description="Writes the weights of one network in another published layout, bit for bit "
        "the same unless --dtype says otherwise. What SRC is, is read from its content.",
    )
    parser.add_argument("source", type=Path, metavar="SRC", help="file, or a part's folder")
    parser.add_argument(
        "target",
        type=Path,
        metavar="DST",
        help="a .safetensors file, or a folder, which gets config.json and weights",
    )
    parser.add_argument(
        "--layout",
        choices=(*STAGE_LAYOUTS, *TEXT_LAYOUTS),
        help="stages: diffusers (default) or original (dome272/Wuerstchen); text encoders: "
        "transformers (default), transformers5 (without text_model.), open_clip, or comfyui "
        "(clip_g.safetensors)",
    )
    parser.add_argument("--part", choices=PARTS, help="which one, where SRC holds several")
    parser.add_argument("--dtype", choices=DTYPES, help="default: as they are stored")
    parser.add_argument("--force", action="store_true", help="overwrite what DST holds")
    parser.set_defaults(handler=handle)


def handle(arguments: argparse.Namespace) -> int:
    try:
        done = convert(
            arguments.source,
            arguments.target,
            arguments.layout,
            arguments.part,
            DTYPES.get(arguments.dtype),
            arguments.force,
        )
    except WuerstchenError as error:
        print(error, file=sys.stderr)
        return BAD_REQUEST
    except OSError as error:
        name = error.filename or arguments.target
        print(f"{name} cannot be written: {error.strerror}.", file=sys.stderr)
        return FAILED
    print(_words(done))
    return DONE


def _words(done: Converted) -> str:
    dtypes = {str(value.dtype).removeprefix("torch.") for value in done.state.values()}
    lines = [
        *map(str, done.files),
        f"  {done.part}, layout {done.layout}, {len(done.state)} tensors, "
        f"{', '.join(sorted(dtypes))}",
    ]
    if done.left_out:
        lines.append(f"  left out: {', '.join(done.left_out)}, which Würstchen does not read")
    return "\n".join(lines)
