"""`wuerstchen run FILE`: runs a graph from a file and prints the paths of what it saved."""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...nodes.runtime import use
from ...wuerstchen_core.errors import CheckpointError, WuerstchenError
from ...wuerstchen_core.files import write_atomically
from ...wuerstchen_core.folder_lock import clean_output
from ..cache import CacheLimits
from ..executor import Executor
from ..exit_codes import BAD_REQUEST, CANCELLED, DONE, FAILED
from ..folders import Folders, HostSurroundings
from ..graph_file import GraphFile, load_graph
from ..graph_inputs import GraphInput, apply_settings, list_inputs
from ..interrupt import cancel_on_signals
from ..messages import OnEvent
from ..problems import describe_problems
from ..progress_view import ProgressView
from ..registry import Nodes, default_nodes
from ..report import RunResult
from ..switches import add_switches, read_switches
from ..validate import validate

EXAMPLES = Path(__file__).resolve().parents[2] / "example_workflows"


def add_parser(subparsers: Any) -> None:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "run",
        help="run a graph from a file",
        description="Runs a graph: a workflow saved on the canvas, an API-format prompt, or a "
        "picture that carries either. Prints the paths of the saved files.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="workflow .json or picture .png")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="settings",
        help='set an input: "prompt=a red star", "Stage C.seed=7", "5.steps=20"',
    )
    parser.add_argument(
        "--output-dir",
        type=Path,
        default=Path("output"),
        metavar="DIR",
        help="where files are saved (default: ./output)",
    )
    parser.add_argument(
        "--input-dir",
        type=Path,
        default=Path("input"),
        metavar="DIR",
        help="where loaders look (default: ./input)",
    )
    parser.add_argument(
        "--models",
        action="append",
        type=Path,
        default=[],
        metavar="DIR",
        help="a folder of weights to search before ./models and the bundled ones; repeatable",
    )
    parser.add_argument("--list", action="store_true", help="print the graph's inputs and stop")
    parser.add_argument("--json", action="store_true", help="print one event a line as JSON")
    add_switches(parser)
    parser.set_defaults(handler=handle)


def handle(arguments: argparse.Namespace, nodes: Nodes | None = None) -> int:
    """Runs the command; `nodes` replaces the known nodes in tests."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    folders = Folders(
        input=arguments.input_dir.resolve(),
        output=arguments.output_dir.resolve(),
        # Pictures that are only shown have no canvas here, so they are kept, apart from the saved.
        temp=arguments.output_dir.resolve() / "previews",
        models=(*(folder.resolve() for folder in arguments.models), Path("models").resolve()),
    )
    try:
        return _run(arguments, nodes or default_nodes(), folders)
    except WuerstchenError as error:
        for line in str(error).splitlines():
            _complain(arguments.json, line)
        return BAD_REQUEST


def _run(arguments: argparse.Namespace, nodes: Nodes, folders: Folders) -> int:
    switches = read_switches(arguments)
    for folder in arguments.models:
        if not folder.is_dir():
            raise WuerstchenError(f"--models '{folder}' is not a folder; name one that exists.")
    with use(HostSurroundings(folders)):
        graph = load_graph(_example(arguments.file) or arguments.file, nodes)
        files = apply_settings(graph, nodes, arguments.settings)
        if arguments.list:
            _print_inputs(list_inputs(graph.prompt, nodes), arguments.json)
            return DONE
    folders = replace(folders, extra_inputs=files)
    with use(HostSurroundings(folders)):
        validation = validate(graph.prompt, nodes.classes)
    problems = list(describe_problems(graph.prompt, validation))
    if problems:
        for problem in problems:
            _complain(arguments.json, problem)
        return BAD_REQUEST
    _prepare(folders)
    # One prompt in a process: nothing would ever be asked of the cache again.
    executor = Executor(nodes.classes, folders, CacheLimits(entries=0), optimization=switches)
    result = _execute(arguments.json, graph, executor, validation.outputs)
    return _report(result, graph, folders, arguments.json)


def _example(file: Path) -> Path | None:
    """The packaged example workflow that is meant when `file` is not there, as after installing
    a wheel."""
    packaged = EXAMPLES / file.name
    given = not file.exists() and file.parent.name in ("", EXAMPLES.name)
    return packaged if given and packaged.is_file() else None


def _prepare(folders: Folders) -> None:
    """An output folder that can be written, before any work; the named files become inputs, so
    that a saved picture's graph finds them again."""
    try:
        folders.output.mkdir(parents=True, exist_ok=True)
        clean_output(folders.output)
        with tempfile.TemporaryFile(dir=folders.output):
            pass
        for name, source in folders.extra_inputs.items():
            folders.input.mkdir(parents=True, exist_ok=True)
            if not (folders.input / name).exists():
                with write_atomically(folders.input / name) as partial:
                    shutil.copyfile(source, partial)
    except OSError as error:
        raise WuerstchenError(
            f"'{error.filename or folders.output}' cannot be written: {error.strerror}; choose "
            "another --output-dir or --input-dir."
        ) from error


def _execute(as_json: bool, graph: GraphFile, executor: Executor, outputs: list[str]) -> RunResult:
    with cancel_on_signals() as cancel, ProgressView(graph.prompt, quiet=as_json) as view:
        listener: OnEvent = _print_event if as_json else view.on_event
        return executor.run(
            graph.prompt,
            outputs,
            extra_data=graph.extra_data,
            on_event=listener,
            cancel=cancel,
        )


def _report(result: RunResult, graph: GraphFile, folders: Folders, as_json: bool) -> int:
    saved = _saved_files(result, folders)
    failure = result.failure
    if as_json:
        message = failure.message if failure else None
        _print_event("result", {"status": result.status, "saved": saved, "message": message})
    else:
        for path in saved:
            _say(path)
    if result.status == "cancelled":
        if not as_json:
            _complain(False, "Cancelled.")
        return CANCELLED
    if failure is None:
        return DONE
    if not as_json:
        title = graph.prompt[failure.node_id].get("_meta", {}).get("title", failure.class_type)
        _complain(False, f"Node {failure.node_id} '{title}': {failure.message}")
    # A file of weights that cannot be used is the request's fault, not the run's.
    return BAD_REQUEST if issubclass(failure.error_class, CheckpointError) else FAILED


def _saved_files(result: RunResult, folders: Folders) -> list[str]:
    roots = {"output": folders.output, "temp": folders.temp}
    return [
        str(roots[file["type"]] / file["subfolder"] / file["filename"])
        for ui in result.outputs.values()
        for files in ui.values()
        for file in files
        if isinstance(file, dict) and file.get("type") in roots
    ]


def _print_inputs(inputs: list[GraphInput], as_json: bool) -> None:
    if as_json:
        for one in inputs:
            _say(
                json.dumps(
                    {
                        "node": one.node_id,
                        "title": one.title,
                        "class_type": one.class_type,
                        "input": one.spec.name,
                        "type": one.spec.kind,
                        "value": one.value,
                        "allowed": one.spec.choices or one.allowed,
                        "min": one.spec.options.get("min"),
                        "max": one.spec.options.get("max"),
                    },
                    ensure_ascii=False,
                )
            )
        return
    rows = [("ID", "NODE", "INPUT", "TYPE", "VALUE", "ALLOWED")]
    rows += [
        (one.node_id, one.title, one.spec.name, one.spec.kind, _short(one.value), one.allowed)
        for one in inputs
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        _say("  ".join([*cells, row[5]]).rstrip())


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 40 else f"{text[:39]}…"


def _print_event(kind: str, data: dict[str, Any]) -> None:
    if kind != "preview":  # a picture has no place in a line of JSON
        _say(json.dumps({"type": kind, "data": data}, ensure_ascii=False, default=str))


def _complain(as_json: bool, message: str) -> None:
    if as_json:
        _print_event("error", {"message": message})
    else:
        sys.stderr.write(f"{message}\n")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
