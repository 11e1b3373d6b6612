"""Ours beside diffusers: seconds, memory and errors, with the same weights, schedule and noise.

    python benchmarks/bench.py --quick --markdown            # 2 CPU cores: under 10 minutes
    python benchmarks/bench.py --json cpu.json --markdown    # a picture is really run: hours
    python benchmarks/bench.py --tables scaling --minutes 60 --markdown --plot docs/scaling.png
    python benchmarks/bench.py --device cuda --compile --tables stages modes scaling \\
        --minutes 8 --json cuda.json --markdown

The published sizes with random weights: no file is needed, but `pip install -e ".[test]"`.
Times are medians of runs in alternation (their spread in brackets) after one that warms up; with
--quick the first run of what takes longer than 10 s counts.
Peak memory is of a stage beside its weights, of a picture with them. The share of the matrix rate
is that of large square products, counted for the operations that diffusers' networks need. Errors
are against diffusers' networks in float32: root mean square, relative.
"""

import argparse
import logging
import math
from pathlib import Path

import diffusers
import torch
import transformers
from measure import Device
from modes import MODES, both_compiled, modes
from pictures import both, composed, composed_out_of_the_box, out_of_the_box
from published import sizes
from runner import Runner
from scaling import scale
from stages import Request, cases

from comfyui_wuerstchen.wuerstchen_core.residency import DTYPES, pick_dtype

logger = logging.getLogger("bench")

TABLES = ("stages", "modes", "scaling")
PATIENCE = 10.0  # seconds
BUSY = 0.5  # of a core, by others: then the numbers are not worth much


def main() -> None:
    arguments = parse()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    diffusers.logging.set_verbosity_error()
    transformers.logging.set_verbosity_error()
    device = Device(arguments.device)
    tiny = arguments.sizes == "tiny"
    runner = Runner(
        device,
        sizes(arguments.sizes),
        pick_dtype(arguments.dtype, device.torch),
        minutes=arguments.minutes,
        patience=PATIENCE if arguments.quick else math.inf,
        matrix_side=256 if tiny else 8192 if device.cuda else 4096,
        save_to=arguments.json,
    )
    about = runner.results.machine
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    if about["load"] > BUSY and not device.cuda:
        logger.warning("the machine is busy (load %s): these numbers are not final", about["load"])
    with torch.no_grad():
        measure(runner, arguments)
    runner.save()
    if arguments.markdown:
        print(f"\n{runner.results.markdown()}")


def measure(runner: Runner, arguments: argparse.Namespace) -> None:
    if "stages" in arguments.tables:
        stages(runner, arguments)
    if "scaling" in arguments.tables:
        scale(
            runner,
            arguments.megapixels,
            arguments.growing_batches,
            arguments.diffusers_up_to,
            arguments.plot,
        )


def stages(runner: Runner, arguments: argparse.Namespace) -> None:
    """The first table, and the second, which is measured against it; one request after another."""
    requests = [Request(side, batch) for batch in arguments.batches for side in arguments.pixels]
    on_cuda, quick, table = runner.device.cuda, arguments.quick, runner.results.rows
    for request in requests:
        is_first = request == requests[0]
        rounds = arguments.rounds if is_first else 1
        measured = [runner.stage(case, request, rounds, table) for case in cases(request)]
        # On the CPU a picture takes minutes, so at most one size is really run.
        really = on_cuda or (is_first and not quick)
        picture = both(runner, request, rounds, measured) if really else None
        row = picture.row if picture else composed(runner, measured, table)
        if is_first or not quick:
            with runner.in_float32():
                runner.compare_with_float32(measured)
                if is_first and picture:
                    out_of_the_box(runner, picture)
                elif is_first:
                    composed_out_of_the_box(runner, row, measured)
        if is_first and arguments.compile:
            both_compiled(runner, request, rounds)
        if (
            "modes" in arguments.tables
            and request.side == requests[0].side
            and (is_first or on_cuda)
        ):
            modes(runner, arguments.modes, row, [] if picture else measured)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--dtype", choices=DTYPES, default="auto")
    add("--quick", action="store_true", help="in 10 minutes on 2 cores: pictures are added up")
    add("--tables", nargs="+", choices=TABLES, default=TABLES[:2])
    add("--modes", nargs="*", choices=tuple(MODES), default=tuple(MODES), help="of table `modes`")
    add("--compile", action="store_true", help="also pictures with both sides compiled")
    add("--pixels", nargs="+", type=int, help="of a side: 1024 1536; with --quick only 1024")
    add("--batches", nargs="+", type=int, help="1 4; with --quick only 1")
    add("--megapixels", nargs="+", type=float, default=[1, 2, 4, 8, 16], help="of `scaling`")
    add("--growing-batches", nargs="+", type=int, default=[1, 2, 4, 8, 16], help="of `scaling`")
    add("--diffusers-up-to", type=float, default=math.inf, help="megapixels of a batch, `scaling`")
    add("--plot", type=Path, help="a picture of `scaling`, for instance docs/scaling.png")
    add("--rounds", type=int, default=3, help="of the first size; others have one")
    add("--minutes", type=float, help="after which nothing is started; 9 with --quick")
    add("--json", type=Path, help="a file for all numbers, written after every row")
    add("--markdown", action="store_true", help="print the tables of the README")
    add("--sizes", choices=("published", "tiny"), default="published")
    arguments = parser.parse_args()
    arguments.pixels = arguments.pixels or ([1024] if arguments.quick else [1024, 1536])
    arguments.batches = arguments.batches or ([1] if arguments.quick else [1, 4])
    arguments.minutes = arguments.minutes or (9 if arguments.quick else 1e6)
    return arguments


if __name__ == "__main__":
    main()
