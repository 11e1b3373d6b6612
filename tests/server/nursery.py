"""Starts `wuerstchen` commands as child processes in milliseconds. Run by path, see `processes.py`.

Importing torch takes seconds. This process does it once and forks itself for every command; it
has no threads, so that a fork is a fresh and whole process.

Reads JSON lines: `{"argv": […], "out": file}` answers with the new process's id, `{"wait": id}`
with its exit code (negative: the signal that ended it), `{}` with 0 once it is ready.
"""

import json
import logging
import os
import sys
import traceback
from typing import Any

# What `serve` imports late, too.
import comfyui_wuerstchen.host.server.assemble  # noqa: F401
from comfyui_wuerstchen.host.cli import main
from comfyui_wuerstchen.host.registry import default_nodes


def run(argv: list[str], out: str) -> int:
    """The forked process: one command with its output in a file."""
    file = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    try:
        return main(argv)
    except BaseException:
        traceback.print_exc()
        return 70
    finally:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()


def serve() -> None:
    default_nodes()
    for line in sys.stdin:
        asked: dict[str, Any] = json.loads(line)
        if "wait" in asked:
            _, status = os.waitpid(asked["wait"], 0)
            answer = os.waitstatus_to_exitcode(status)
        elif not asked:
            answer = 0
        else:
            answer = os.fork()
            if answer == 0:
                os._exit(run(**asked))
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
    os._exit(0)  # taking torch down in order takes seconds
