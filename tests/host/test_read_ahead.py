"""Weights of later nodes are read while a node works: in order, one ahead, only what is needed."""

import threading
import time
from dataclasses import dataclass, field

import pytest

from comfyui_wuerstchen.host.executor import Executor
from comfyui_wuerstchen.nodes.parts import Part
from comfyui_wuerstchen.nodes.runtime import surroundings
from comfyui_wuerstchen.wuerstchen_core.errors import CheckpointError

THREAD = "wuerstchen-read-ahead"
PATIENCE_S = 20.0


@dataclass
class Reads:
    """What was read, by whom, and what is said while nodes work."""

    begun: list[tuple[str, bool]] = field(default_factory=list)  # name, in the background
    at_work: dict[str, list[str]] = field(default_factory=dict)  # part: read ahead as it is used
    broken: str = ""
    hold: threading.Event = field(default_factory=threading.Event)
    held: str = ""

    @property
    def ahead(self) -> list[str]:
        return [name for name, in_background in self.begun if in_background]

    @property
    def by_nodes(self) -> list[str]:
        return [name for name, in_background in self.begun if not in_background]

    def part(self, name: str) -> Part[str]:
        def load(_: object) -> str:
            in_background = threading.current_thread().name.startswith(THREAD)
            self.begun.append((name, in_background))
            if name == self.held:
                assert self.hold.wait(PATIENCE_S)
            if name == self.broken:
                raise CheckpointError(f"{name} is broken")
            return name

        return Part(load)  # type: ignore[arg-type]


@pytest.fixture
def reads() -> Reads:
    return Reads()


@pytest.fixture
def run(reads, folders, nodes):
    class Load:
        RETURN_TYPES = ("PART",) * 4
        FUNCTION = "load"

        @classmethod
        def INPUT_TYPES(cls):
            return {"required": {"name": ("STRING", {"default": "all"})}}

        def load(self, name):
            return tuple(reads.part(one) for one in ("a", "b", "c", "unused"))

    class Use:
        """Works until `until` has been begun to be read."""

        RETURN_TYPES = ("WORD",)
        FUNCTION = "use"

        @classmethod
        def INPUT_TYPES(cls):
            optional = {"more": ("PART",), "after": ("WORD",), "seed": ("INT", {})}
            return {
                "required": {"part": ("PART",), "until": ("STRING", {"default": ""})},
                "optional": optional,
            }

        def use(self, part, until, more=None, after=None, seed=0):
            name = part.get()
            deadline = time.monotonic() + PATIENCE_S
            while until and until not in reads.ahead:
                assert time.monotonic() < deadline, f"{until} was not read"
                surroundings().check_cancelled()
                time.sleep(0.005)
            reads.at_work[name] = reads.ahead
            alive = [one.name for one in threading.enumerate() if one.name.startswith(THREAD)]
            return (f"{name}{len(alive)}",)

    class Pass:
        RETURN_TYPES = ("PART",)
        FUNCTION = "give"

        @classmethod
        def INPUT_TYPES(cls):
            return {"required": {"part": ("PART",), "after": ("WORD",)}}

        def give(self, part, after):
            return (part,)

    class LazyUse(Use):
        @classmethod
        def INPUT_TYPES(cls):
            return {
                "required": {"part": ("PART", {"lazy": True}), "until": ("STRING", {})},
                "optional": {"after": ("WORD",)},
            }

        def check_lazy_status(self, part, until, after=None):
            return ["part"] if part is None else []

    classes = {**nodes.classes, "Load": Load, "Use": Use, "Pass": Pass, "LazyUse": LazyUse}
    executor = Executor(classes, folders)

    def run_prompt(short, cancel=None):
        prompt = {
            node_id: {"class_type": class_type, "inputs": inputs}
            for node_id, (class_type, inputs) in short.items()
        }
        result = executor.run(prompt, ["out"], cancel=cancel)
        left = [one.name for one in threading.enumerate() if one.name.startswith(THREAD)]
        assert left == []  # joined, however the run ended
        return result

    return run_prompt


def chain(until=("b", "c", "")):
    """One node after the other uses one part each."""
    return {
        "load": ("Load", {"name": "all"}),
        "1": ("Use", {"part": ["load", 0], "until": until[0]}),
        "2": ("Use", {"part": ["load", 1], "until": until[1], "after": ["1", 0]}),
        "3": ("Use", {"part": ["load", 2], "until": until[2], "after": ["2", 0]}),
        "out": ("Show", {"value": ["3", 0]}),
    }


def test_in_order_one_ahead_and_only_what_is_used(run, reads):
    assert run(chain()).status == "success"
    assert reads.by_nodes == ["a"]
    assert reads.at_work == {"a": ["b"], "b": ["b", "c"], "c": ["b", "c"]}


def test_what_is_read_costs_no_thread(run, reads):
    run(chain())
    graph = chain(until=("", "", ""))
    for node_id in "123":
        graph[node_id][1]["seed"] = 7
    assert run(graph).outputs["out"] == {"shown": ["c0"]}
    assert len(reads.begun) == 3


def test_an_error_is_told_by_the_node_that_uses_the_weights(run, reads):
    reads.broken = "b"
    failure = run(chain()).failure
    assert (failure.node_id, failure.message) == ("2", "b is broken")
    assert failure.error_class is CheckpointError
    # "c" may have been begun before node 2 failed.
    assert (reads.ahead[:1], reads.by_nodes) == (["b"], ["a", "b"])
    assert "a" in reads.at_work


def test_cancel_stops_after_the_part_that_is_being_read(run, reads):
    graph = chain(until=("never", "", ""))
    graph["2"][1]["more"] = ["load", 2]
    reads.held = "b"
    cancel = threading.Event()

    def cancel_while_reading():
        while reads.ahead != ["b"]:
            time.sleep(0.005)
        cancel.set()
        reads.hold.set()

    clicker = threading.Thread(target=cancel_while_reading)
    clicker.start()
    result = run(graph, cancel)
    clicker.join()
    assert result.status == "cancelled"
    assert (reads.ahead, reads.by_nodes) == (["b"], ["a"])


def test_both_parts_of_the_next_node_are_read(run, reads):
    graph = chain(until=("c", "", ""))
    graph["2"][1]["more"] = ["load", 2]
    assert run(graph).status == "success"
    assert (reads.ahead, reads.by_nodes) == (["b", "c"], ["a"])


def test_who_only_passes_a_part_on_does_not_make_it_read(run, reads):
    graph = chain(until=("c", "", ""))
    graph["pass"] = ("Pass", {"part": ["load", 1], "after": ["1", 0]})
    graph["2"] = ("Use", {"part": ["pass", 0], "until": "", "after": ["1", 0]})
    assert run(graph).status == "success"
    assert (reads.ahead, reads.by_nodes) == (["c"], ["a", "b"])


def test_a_lazy_input_that_is_not_asked_for_is_not_read(run, reads):
    graph = chain(until=("c", "", ""))
    graph["2"] = ("LazyUse", {"part": ["load", 1], "until": "", "after": ["1", 0]})
    assert run(graph).status == "success"
    assert (reads.ahead, reads.by_nodes) == (["c"], ["a", "b"])
