"""The command line: exit codes, output, cancel, and pictures that are their own recipe."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from comfyui_wuerstchen.host import registry
from comfyui_wuerstchen.host.cli import main

GRAPH = {
    "1": {
        "class_type": "Picture",
        "inputs": {"content": "NOISE", "height": 16, "seed": 3},
        "_meta": {"title": "Source"},
    },
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "made"}},
}


@pytest.fixture
def cli(nodes, tmp_path, monkeypatch, capsys):
    """Runs `wuerstchen run` on a graph in an empty folder; returns (code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("comfyui_wuerstchen.host.commands.run.default_nodes", lambda: nodes)

    def call(graph, *arguments):
        if not isinstance(graph, (str, Path)):
            path = tmp_path / "graph.json"
            path.write_text(json.dumps(graph), encoding="utf-8")
            graph = path
        code = main(["run", str(graph), *arguments])
        return (code, *capsys.readouterr())

    return call


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_a_run_prints_what_it_saved(cli, tmp_path):
    code, out, _ = cli(GRAPH)
    assert code == 0
    assert out.splitlines() == [str(tmp_path / "output" / "made_00001_.png")]
    assert Path(out.strip()).is_file()


def test_settings_change_the_picture_and_its_recipe(cli, tmp_path):
    _, first, _ = cli(GRAPH)
    _, second, _ = cli(GRAPH, "--set", "Source.seed=4", "--output-dir", "other")
    first, second = Path(first.strip()), Path(second.strip())
    assert second.parent == tmp_path / "other"
    assert (pixels(first) != pixels(second)).any()
    with Image.open(second) as picture:
        assert json.loads(picture.text["prompt"])["1"]["inputs"]["seed"] == 4


def test_a_picture_makes_itself_again_bit_for_bit(cli):
    canvas = {
        "version": 0.4,
        "nodes": [
            {
                "id": 1,
                "type": "Picture",
                "widgets_values": ["NOISE", 16, 3, "randomize"],
                "outputs": [{"name": "IMAGE", "type": "IMAGE"}],
            },
            {
                "id": 2,
                "type": "SaveImage",
                "widgets_values": ["made"],
                "inputs": [{"name": "images", "type": "IMAGE", "link": 1}],
            },
        ],
        "links": [[1, 1, 0, 2, 0, "IMAGE"]],
    }
    _, first, _ = cli(canvas, "--set", "seed=99")
    _, second, _ = cli(first.strip())
    assert first != second
    assert Path(first.strip()).read_bytes() == Path(second.strip()).read_bytes()
    with Image.open(second.strip()) as picture:
        saved = json.loads(picture.text["workflow"])
    assert saved["nodes"][0]["widgets_values"] == ["NOISE", 16, 99, "randomize"]


def test_a_loaded_file_anywhere_on_the_disk(cli, tmp_path):
    Image.new("RGB", (5, 4), "red").save(tmp_path / "mine.png")
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "none.png"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    }
    code, _, err = cli(graph)
    assert code == 2
    assert (
        err == "Node 1 'LoadImage': input 'image': There is no file 'none.png' in the input "
        "folder; put it there, or name another.\n"
    )
    code, out, _ = cli(graph, "--set", f"LoadImage.image={tmp_path / 'mine.png'}")
    assert code == 0 and pixels(out.strip()).shape == (4, 5, 3)
    # The picture's own graph finds the file again, and does not tell where it came from.
    with Image.open(out.strip()) as picture:
        assert str(tmp_path) not in picture.text["prompt"]
    (tmp_path / "mine.png").unlink()
    code, again, _ = cli(Path(out.strip()))
    assert code == 0 and (pixels(again.strip()) == pixels(out.strip())).all()


def test_an_output_folder_that_cannot_be_written_is_told_before_the_work(cli, tmp_path):
    (tmp_path / "file").touch()
    code, out, err = cli(GRAPH, "--output-dir", "file")
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1 and "cannot be written" in err


def test_every_problem_is_told_at_once(cli):
    bad = json.loads(json.dumps(GRAPH))
    bad["1"]["inputs"] |= {"content": "PINK", "height": 5000}
    code, out, err = cli(bad)
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        "Node 1 'Source': input 'content' got 'PINK'; expected WHITE, BLACK, NOISE.",
        "Node 1 'Source': input 'height' got 5000; expected a whole number, 1 to 1024.",
    ]


@pytest.mark.parametrize(
    ("graph", "arguments", "words"),
    [
        ("none.json", [], "Cannot read"),
        (GRAPH, ["--set", "nothing=1"], "has no input 'nothing'"),
        (GRAPH, ["--models", "nowhere"], "is not a folder"),
        (GRAPH, ["--unknown"], "unrecognized arguments"),
        ({"1": {"class_type": "Nope", "inputs": {}}}, [], "unknown kind Nope"),
        ({"1": GRAPH["1"]}, [], "saves and shows nothing"),
    ],
)
def test_bad_requests(cli, graph, arguments, words):
    code, out, err = cli(graph, *arguments)
    assert (code, out) == (2, "")
    assert words in err and "Traceback" not in err


@pytest.mark.parametrize(("kind", "code"), [("bug", 1), ("setting", 1), ("checkpoint", 2)])
def test_failures_while_running(cli, kind, code):
    graph = {
        "1": {"class_type": "Fail", "inputs": {"kind": kind}},
        "2": {"class_type": "Show", "inputs": {"value": ["1", 0]}},
    }
    got, out, err = cli(graph)
    assert (got, out) == (code, "")
    assert err.splitlines()[-1] == f"Node 1 'Fail': a {kind} went wrong"


def test_json_gives_one_event_a_line(cli):
    code, out, err = cli(GRAPH, "--json")
    events = [json.loads(line) for line in out.splitlines()]
    assert (code, err) == (0, "")
    assert events[0]["type"] == "execution_start"
    assert events[-1]["type"] == "result"
    assert events[-1]["data"]["status"] == "success" and len(events[-1]["data"]["saved"]) == 1
    code, out, _ = cli(GRAPH, "--json", "--set", "nothing=1")
    assert code == 2 and json.loads(out)["type"] == "error"


def test_list(cli):
    code, out, _ = cli(GRAPH, "--list", "--set", "seed=12")
    lines = out.splitlines()
    assert code == 0 and lines[0].split() == ["ID", "NODE", "INPUT", "TYPE", "VALUE", "ALLOWED"]
    assert " ".join(lines[3].split()) == f"1 Source seed INT 12 a whole number, 0 to {2**64 - 1}"
    _, out, _ = cli(GRAPH, "--list", "--json")
    assert json.loads(out.splitlines()[1]) == {
        "node": "1",
        "title": "Source",
        "class_type": "Picture",
        "input": "height",
        "type": "INT",
        "value": 16,
        "allowed": "a whole number, 1 to 1024",
        "min": 1,
        "max": 1024,
    }


SLOW = {
    "1": {"class_type": "Slow", "inputs": {"steps": 10000}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "made"}},
}
CHILD = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("toys", sys.argv[1])
toys = importlib.util.module_from_spec(spec)
spec.loader.exec_module(toys)
from comfyui_wuerstchen.host import cli
from comfyui_wuerstchen.host.commands import run
run.default_nodes = lambda: toys.TOY_NODES
sys.exit(cli.main(sys.argv[2:]))
"""


@pytest.fixture
def start(tmp_path):
    """Starts a real process and waits until its node is at work."""
    package = Path(registry.__file__).parents[2]
    started = []

    def begin(class_type):
        graph = json.loads(json.dumps(SLOW))
        graph["1"]["class_type"] = class_type
        (tmp_path / "slow.json").write_text(json.dumps(graph), encoding="utf-8")
        toys = Path(__file__).with_name("toy_nodes.py")
        process = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(toys), "run", "slow.json", "--json"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(package), *sys.path])},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        while '"progress"' not in process.stdout.readline():
            assert process.poll() is None, process.stderr.read()
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def visible_files(tmp_path):
    return list((tmp_path / "output").glob("[!.]*"))


on_posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")


@on_posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_within_a_step(start, tmp_path, number):
    process = start("Slow")
    process.send_signal(number)
    began = time.monotonic()
    out, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert time.monotonic() - began < 5  # most of it is Python's own way out
    events = [json.loads(line) for line in out.splitlines()]
    assert events[-2]["type"] == "execution_interrupted"
    assert events[-1]["data"]["status"] == "cancelled"
    assert "Traceback" not in err
    assert not visible_files(tmp_path)


@on_posix
def test_a_second_signal_ends_the_process(start, tmp_path):
    process = start("Deaf")
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.5)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=5) == 130


@on_posix
def test_kill_leaves_no_file(start, tmp_path):
    process = start("Slow")
    process.kill()
    process.wait()
    assert not visible_files(tmp_path)
