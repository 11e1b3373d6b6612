"""The command `wuerstchen`: one subcommand a file in `commands/`."""

from __future__ import annotations

import argparse
import atexit
import gc
import logging
import os
import sys
from collections.abc import Sequence

from .commands import COMMANDS
from .exit_codes import CANCELLED

# transformers imports torchao where it is installed, which warns of kernels for other machines.
_NOISY = ("torchao", "torch.utils._pytree")


def main(argv: Sequence[str] | None = None) -> int:
    """0 done · 1 failed while running · 2 bad arguments or graph · 130 cancelled."""
    # Python would search all that is loaded for garbage before it ends, which takes a second.
    atexit.register(gc.freeze)
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    parser = argparse.ArgumentParser(prog="wuerstchen", description="Würstchen v2 as a graph.")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(subparsers)
    try:
        arguments = parser.parse_args(argv)
    except SystemExit as stop:  # argparse has said what is wrong
        return int(stop.code or 0)
    try:
        return arguments.handler(arguments)
    except KeyboardInterrupt:
        return CANCELLED
    except BrokenPipeError:
        # The reader has gone (`… | head`); Python must not try to flush to it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main())
