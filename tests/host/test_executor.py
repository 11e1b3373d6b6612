"""What the executor promises: laziness, lists, caching, expansion, blocking, cancel, failure."""

import gc
import threading
import time
import weakref
from types import SimpleNamespace

import pytest
import torch

from comfyui_wuerstchen.host.cache import CacheLimits, NodeOutput, OutputCache
from comfyui_wuerstchen.host.executor import Executor
from comfyui_wuerstchen.host.schedule import DependencyCycleError
from comfyui_wuerstchen.nodes.runtime import OUT_OF_MEMORY
from comfyui_wuerstchen.wuerstchen_core.errors import CheckpointError, SettingError

WHITE = {"content": "WHITE", "height": 8}
BLACK = {"content": "BLACK", "height": 8}


def shown(result, node_id="out"):
    return result.outputs[node_id]["shown"]


def kinds(events, *wanted):
    return [(kind, data) for kind, data in events if kind in wanted]


def lazy_graph(mask):
    return {
        "1": ("Picture", BLACK),
        "2": ("Picture", WHITE),
        "3": ("Mask", {"value": mask}),
        "4": ("LazyMix", {"image1": ["1", 0], "image2": ["2", 0], "mask": ["3", 0]}),
        "5": ("PreviewImage", {"images": ["4", 0]}),
    }


@pytest.mark.parametrize(("mask", "pictures"), [(0.0, 1), (1.0, 1), (0.5, 2)])
def test_lazy_inputs_run_only_when_asked_for(run, toys, mask, pictures):
    result, _ = run(lazy_graph(mask))
    assert result.status == "success"
    assert toys.CALLS.count("Picture") == pictures


def test_events_come_in_order(run):
    result, events = run(lazy_graph(0.5), prompt_id="p")
    order = [
        (
            kind,
            data.get("node")
            or sorted(k for k, v in data.get("nodes", {}).items() if v["state"] == "running"),
        )
        for kind, data in events
        if kind in ("executing", "executed", "execution_start", "execution_success")
    ]
    assert order == [
        ("execution_start", []),
        ("executing", "3"),
        ("executing", "4"),
        ("executing", "1"),
        ("executing", "2"),
        ("executing", "4"),
        ("executing", "5"),
        ("executed", "5"),
        ("execution_success", []),
    ]
    assert all(data["prompt_id"] == "p" for _, data in events)
    first = kinds(events, "progress_state")[0][1]
    assert first["nodes"] == {
        "3": {
            "value": 0.0,
            "max": 1.0,
            "state": "running",
            "node_id": "3",
            "prompt_id": "p",
            "display_node_id": "3",
            "parent_node_id": None,
            "real_node_id": "3",
        }
    }
    last = kinds(events, "progress_state")[-1][1]
    assert {node["state"] for node in last["nodes"].values()} == {"finished"}
    assert result.meta["5"] == {
        "node_id": "5",
        "display_node": "5",
        "parent_node": None,
        "real_node_id": "5",
    }


def test_the_second_run_is_cached(run, toys):
    run(lazy_graph(0.5))
    toys.CALLS.clear()
    result, events = run(lazy_graph(0.5))
    assert toys.CALLS == []
    assert [kind for kind, _ in events] == [
        "execution_start",
        "execution_cached",
        "executed",
        "progress_state",
        "execution_success",
    ]
    assert events[1][1]["nodes"] == ["1", "2", "3", "4", "5"]
    assert result.outputs["5"]["images"][0]["type"] == "temp"


def test_what_a_cached_node_in_the_middle_shows_is_sent_again(run):
    graph = {"1": ("Hint", {"text": "a"}), "out": ("Show", {"value": ["1", 0]})}
    for _ in range(2):
        result, events = run(graph)
        assert result.outputs["1"] == {"hint": ["a"]}
        assert [data["node"] for _, data in kinds(events, "executed")] == ["1", "out"]


def test_only_what_depends_on_a_change_runs_again(run, toys):
    graph = lazy_graph(0.5)
    run(graph)
    toys.CALLS.clear()
    graph["2"] = ("Picture", {**WHITE, "seed": 7})
    run(graph)
    assert toys.CALLS == ["Picture", "LazyMix"]


def test_an_equal_node_under_another_id_is_cached(run, toys):
    run({"1": ("Picture", WHITE), "5": ("PreviewImage", {"images": ["1", 0]})})
    toys.CALLS.clear()
    run({"7": ("Picture", WHITE), "5": ("PreviewImage", {"images": ["7", 0]})})
    assert "Picture" not in toys.CALLS


def test_is_changed(run, toys):
    graph = {"1": ("Changed", {"value": 3}), "out": ("Show", {"value": ["1", 0]})}
    for state, expected in ((1.0, 1), (1.0, 0), (2.0, 1), (float("nan"), 1), (float("nan"), 1)):
        toys.CALLS.clear()
        toys.Changed.state = state
        run(graph)
        assert toys.CALLS.count("Changed") == expected


def test_a_personal_node_is_cached_for_its_own_id_only(run, toys):
    graph = {
        "1": ("Personal", {}),
        "2": ("Personal", {}),
        "a": ("Show", {"value": ["1", 0]}),
        "b": ("Show", {"value": ["2", 0]}),
    }
    result, _ = run(graph)
    assert toys.CALLS.count("Personal 1 of 4") == toys.CALLS.count("Personal 2 of 4") == 1
    assert (shown(result, "a"), shown(result, "b")) == ([1], [2])
    toys.CALLS.clear()
    run(graph)
    assert toys.CALLS == []


def test_lists_are_mapped_joined_and_handed_over_whole(run):
    result, _ = run(
        {
            "1": ("MakeList", {"count": 4}),
            "2": ("MakeList", {"count": 2}),
            "3": ("Add", {"a": ["1", 0], "b": ["2", 0]}),
            "4": ("SumList", {"values": ["3", 0]}),
            "out": ("Show", {"value": ["3", 0]}),
            "sum": ("Show", {"value": ["4", 0]}),
        }
    )
    assert shown(result) == [0, 2, 3, 4]  # the shorter list repeats its last
    assert shown(result, "sum") == [9]


def test_an_empty_list_maps_to_nothing(run):
    result, _ = run(
        {
            "1": ("MakeList", {"count": 0}),
            "2": ("Add", {"a": ["1", 0], "b": 1}),
            "3": ("SumList", {"values": ["2", 0]}),
            "out": ("Show", {"value": ["3", 0]}),
        }
    )
    assert shown(result) == [0]


def test_a_blocker_stops_what_follows_and_nothing_else(run):
    result, events = run(
        {
            "1": ("Blocker", {"message": ""}),
            "2": ("Add", {"a": ["1", 0], "b": 1}),
            "out": ("Show", {"value": ["2", 0]}),
            "3": ("Text", {"text": "hi"}),
            "other": ("Show", {"value": ["3", 0]}),
        }
    )
    assert result.status == "success"
    assert result.outputs == {"other": {"shown": ["hi"]}}
    assert not kinds(events, "execution_error")


def test_a_blocker_with_a_message_is_reported_once(run):
    result, events = run(
        {
            "1": ("Blocker", {"message": "not today"}),
            "2": ("Add", {"a": ["1", 0], "b": 1}),
            "out": ("Show", {"value": ["2", 0]}),
        }
    )
    errors = kinds(events, "execution_error")
    assert [(e["node_id"], e["exception_message"]) for _, e in errors] == [
        ("2", "Execution Blocked: not today")
    ]
    assert result.status == "success"


def test_expansion(run, toys):
    graph = {
        "0": ("MakeList", {"count": 2}),
        "1": ("Expand", {"value": ["0", 0], "count": 3}),
        "out": ("Show", {"value": ["1", 0]}),
    }
    result, events = run(graph)
    assert shown(result) == [3, 4]
    inner = [data for _, data in kinds(events, "executing") if data["node"].startswith("1.")]
    assert len(inner) == 6
    assert {data["display_node"] for data in inner} == {"1"}
    toys.CALLS.clear()
    again, _ = run(graph)
    assert shown(again) == [3, 4] and toys.CALLS == []


def test_async_nodes_run_side_by_side(run):
    graph = {str(i): ("AsyncSleep", {"seconds": 0.3, "value": i}) for i in range(4)}
    graph |= {f"out{i}": ("Show", {"value": [str(i), 0]}) for i in range(4)}
    began = time.monotonic()
    result, _ = run(graph)
    assert time.monotonic() - began < 0.8
    assert [shown(result, f"out{i}") for i in range(4)] == [[0], [1], [2], [3]]


@pytest.mark.parametrize("kind", ["bug", "setting", "checkpoint"])
def test_a_failing_node_names_itself(run, kind):
    result, events = run(
        {
            "1": ("Text", {"text": "x"}),
            "first": ("Show", {"value": ["1", 0]}),
            "2": ("Fail", {"kind": kind}),
            "out": ("Show", {"value": ["2", 0]}),
        }
    )
    assert result.status == "error"
    assert (result.failure.node_id, result.failure.class_type) == ("2", "Fail")
    assert result.failure.message == f"a {kind} went wrong"
    assert issubclass(result.failure.error_class, CheckpointError) == (kind == "checkpoint")
    error = kinds(events, "execution_error")[0][1]
    assert (error["node_id"], error["node_type"], error["traceback"]) == ("2", "Fail", [])
    assert error["exception_message"] == f"a {kind} went wrong\n"
    assert error["current_inputs"] == {"kind": [kind]}


def test_a_failure_frees_what_the_run_held(folders, nodes):
    references = []

    class Hold(nodes.classes["Picture"]):
        def make(self, **inputs):
            (image,) = super().make(**inputs)
            references.append(weakref.ref(image))
            return (image,)

    class FailOn(nodes.classes["Show"]):
        def show(self, value):
            raise SettingError("no")  # not one that pytest keeps in its log with its frames

    classes = {"Hold": Hold, "FailOn": FailOn}
    executor = Executor(classes, folders, CacheLimits(entries=0))
    prompt = {
        "1": {"class_type": "Hold", "inputs": WHITE},
        "2": {"class_type": "FailOn", "inputs": {"value": ["1", 0]}},
    }
    result = executor.run(prompt, ["2"])
    gc.collect()
    assert result.status == "error"
    assert [reference() for reference in references] == [None]


def test_cancel_stops_within_a_step(run):
    cancel = threading.Event()
    threading.Timer(0.3, cancel.set).start()
    began = time.monotonic()
    result, events = run(
        {"1": ("Slow", {"steps": 1000}), "out": ("PreviewImage", {"images": ["1", 0]})},
        cancel=cancel,
    )
    assert result.status == "cancelled"
    assert time.monotonic() - began < 0.6
    assert [(kind, data["node_id"]) for kind, data in events[-1:]] == [
        ("execution_interrupted", "1")
    ]


def test_cancel_stops_background_nodes(run):
    cancel = threading.Event()
    threading.Timer(0.2, cancel.set).start()
    began = time.monotonic()
    result, _ = run(
        {"1": ("AsyncSleep", {"seconds": 30.0, "value": 1}), "out": ("Show", {"value": ["1", 0]})},
        cancel=cancel,
    )
    assert result.status == "cancelled"
    assert time.monotonic() - began < 1


def test_progress_is_reported_per_node(run):
    _, events = run({"1": ("Slow", {"steps": 3}), "out": ("PreviewImage", {"images": ["1", 0]})})
    steps = [data for _, data in kinds(events, "progress")]
    assert [(d["node"], d["value"], d["max"]) for d in steps] == [
        ("1", 1.0, 3.0),
        ("1", 2.0, 3.0),
        ("1", 3.0, 3.0),
    ]


def test_nodes_that_wait_for_each_other_fail_by_name(executor):
    prompt = {
        "1": {"class_type": "Add", "inputs": {"a": ["2", 0], "b": 1}},
        "2": {"class_type": "Add", "inputs": {"a": ["1", 0], "b": 1}},
        "out": {"class_type": "Show", "inputs": {"value": ["1", 0]}},
    }
    result = executor.run(prompt, ["out"])
    assert result.failure.error_class is DependencyCycleError


def test_nodes_run_without_gradients(executor, nodes):
    class Grad(nodes.classes["Text"]):
        def give(self, text):
            return (str(torch.is_inference_mode_enabled()),)

    executor.registry = {**executor.registry, "Grad": Grad}
    prompt = {
        "1": {"class_type": "Grad", "inputs": {"text": ""}},
        "out": {"class_type": "Show", "inputs": {"value": ["1", 0]}},
    }
    assert shown(executor.run(prompt, ["out"])) == ["True"]


def test_the_callers_prompt_is_left_alone(executor, nodes):
    class Spoil(nodes.classes["Personal"]):
        def give(self, me, prompt):
            prompt.clear()
            return (1,)

    executor.registry = {**executor.registry, "Spoil": Spoil}
    prompt = {
        "1": {"class_type": "Spoil", "inputs": {}},
        "out": {"class_type": "Show", "inputs": {"value": ["1", 0]}},
    }
    executor.run(prompt, ["out"])
    assert prompt.keys() == {"1", "out"}


def test_the_cache_is_bounded_in_number_and_bytes():
    def output(values):
        return NodeOutput([[{"samples": torch.zeros(values)}]])

    cache = OutputCache(CacheLimits(entries=3, bytes=1000))
    for name in "abcd":
        cache.put(name, output(10))
    assert [name in cache for name in "abcd"] == [False, True, True, True]
    cache.get("b")
    cache.put("e", output(200))  # 800 bytes: the least recently used must go
    assert [name in cache for name in "bcde"] == [True, False, True, True]
    cache.put("f", output(1000))  # larger than the whole cache
    assert len(cache) == 0 and cache.nbytes == 0


class Loaded:
    """What a loader gives: weights of so many bytes."""

    def __init__(self, weights):
        self.weights = weights

    @classmethod
    def of(cls, size):
        return cls(SimpleNamespace(nbytes=size))


def test_networks_are_bounded_apart_and_the_last_one_stays():
    cache = OutputCache(CacheLimits(bytes=1000, weight_bytes=100))
    cache.put("picture", NodeOutput([[torch.zeros(10)]]))
    cache.put("old", NodeOutput([[Loaded.of(80)]]))
    lazy = Loaded.of(0)  # reads its weights when it is first used
    cache.put("new", NodeOutput([[lazy]]))
    assert "old" in cache
    lazy.weights.nbytes = 500
    cache.put("text", NodeOutput([["a word"]]))
    assert [name in cache for name in ("picture", "old", "new", "text")] == [
        True,
        False,
        True,
        True,
    ]


def test_networks_that_several_outputs_share_weigh_once():
    def loaded(weights):
        return NodeOutput([[Loaded(weights)], [Loaded.of(1)]])

    cache = OutputCache(CacheLimits(weight_bytes=100))
    shared = SimpleNamespace(nbytes=90)
    for name in ("loader", "other loader", "optimized"):
        cache.put(name, loaded(shared))
    assert len(cache) == 3  # 93 bytes
    cache.put("large", loaded(SimpleNamespace(nbytes=70)))
    # The shared weights are gone only with the last that holds them.
    assert [name in cache for name in ("loader", "other loader", "optimized", "large")] == [
        False,
        False,
        False,
        True,
    ]


def test_more_than_fits_into_memory_is_said_in_words(executor, nodes):
    class Hungry(nodes.classes["Text"]):
        def give(self, text):
            return (torch.empty(1 << 60, dtype=torch.uint8),)  # beyond any address space

    executor.registry = {**executor.registry, "Hungry": Hungry}
    executor.cache.put("kept", NodeOutput([[1]]))
    prompt = {
        "1": {"class_type": "Hungry", "inputs": {"text": ""}},
        "out": {"class_type": "Show", "inputs": {"value": ["1", 0]}},
    }
    failure = executor.run(prompt, ["out"]).failure
    assert failure.message == OUT_OF_MEMORY
    assert "kept" not in executor.cache
