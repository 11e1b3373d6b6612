"""`wuerstchen train demo`: trains the demo checkpoint from nothing, and `demo-lora` its LoRA."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path
from typing import Any

from ...wuerstchen_core.errors import WuerstchenError
from ..exit_codes import BAD_REQUEST, CANCELLED, DONE


def add_parser(subparsers: Any) -> None:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "train",
        help="train a model",
        description="demo: trains the demo checkpoint stage after stage, evaluates it and writes "
        "it in the published folder layout. demo-lora: trains the LoRA that makes its shapes red, "
        "on the weights in --out, and writes it there. Stop either at any moment with Ctrl-C; the "
        "same command goes on.",
    )
    parser.add_argument("what", choices=["demo", "demo-lora"])
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("runs/demo"),
        metavar="DIR",
        help="where checkpoints, logs, plots and sample sheets go",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("models/wuerstchen-demo"),
        metavar="DIR",
        help="where the finished folder of weights goes",
    )
    parser.add_argument(
        "--stage",
        action="append",
        default=[],
        metavar="NAME",
        help="train only this stage (stage_a, text, image_encoder, stage_b, stage_c); repeatable",
    )
    parser.add_argument(
        "--steps", type=int, metavar="N", help="train each stage this long, to try things out"
    )
    parser.add_argument(
        "--evaluate", action="store_true", help="only write and evaluate what is trained"
    )
    parser.set_defaults(handler=handle)


def handle(arguments: argparse.Namespace) -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        # matplotlib and transformers are imported here, so that other commands start quickly.
        from ...wuerstchen_core.training.demo.evaluate import evaluate
        from ...wuerstchen_core.training.demo.lora import train_red_lora
        from ...wuerstchen_core.training.demo.recipe import Recipe
    except ModuleNotFoundError as error:
        message = f'{error.name} is missing; install it with: pip install -e ".[train]"'
        print(message, file=sys.stderr)
        return BAD_REQUEST
    recipe = Recipe(arguments.work)
    try:
        if arguments.what == "demo-lora":
            print(train_red_lora(arguments.out, arguments.work, arguments.steps))
            return DONE
        if not arguments.evaluate:
            recipe.run(*([arguments.stage] if arguments.stage else []), steps=arguments.steps)
        if arguments.evaluate or not arguments.stage:
            recipe.export(arguments.out)
            print(json.dumps(evaluate(arguments.out, arguments.work / "report"), indent=2))
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return CANCELLED
    except WuerstchenError as error:
        print(error, file=sys.stderr)
        return BAD_REQUEST
    return DONE
