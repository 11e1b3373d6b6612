"""Whatever arrives at `/prompt`: a well-formed answer, and the server lives."""

import copy
import json
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ..paths import WORKFLOWS
from ..server.workflows import api_prompt
from .conftest import Answer, Target

FUZZ = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, -1, 1 << 31, 1 << 64, -(1 << 63) - 1, 10**30])
    | st.floats(allow_nan=True, allow_infinity=True)
    | st.text()
    | st.sampled_from(
        ["", "1", "2", "__value__", "class_type", "inputs", "PreviewAny", "\0", "../x"]
    )
)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
LINKS = st.tuples(st.sampled_from(["1", "2", "3", "9", ""]), st.integers(-2, 9)).map(list)
NODES = st.fixed_dictionaries(
    {},
    optional={
        "class_type": st.sampled_from(
            [
                "WuerstchenTextEncode",
                "WuerstchenEmptyLatent",
                "WuerstchenStageCSampler",
                "SaveImage",
                "PreviewAny",
                "LoadImage",
                "PrimitiveInt",
                "Nope",
                "",
            ]
        )
        | JSON,
        "inputs": st.dictionaries(
            st.sampled_from(["value", "source", "image", "images", "samples", "width", "seed"])
            | st.text(),
            LINKS | JSON,
            max_size=4,
        )
        | JSON,
        "_meta": JSON,
        "is_changed": JSON,
    },
)
GRAPHS = st.dictionaries(st.sampled_from(["1", "2", "3"]) | st.text(), NODES | JSON, max_size=4)
REQUESTS = st.fixed_dictionaries(
    {},
    optional={
        "prompt": GRAPHS | JSON,
        "prompt_id": JSON | st.uuids().map(str),
        "client_id": JSON,
        "number": JSON,
        "front": JSON,
        "extra_data": JSON | st.dictionaries(st.text(), JSON, max_size=3),
        "partial_execution_targets": JSON
        | st.lists(st.sampled_from(["1", "2"]) | JSON, max_size=3),
    },
)


def check(target: Target, answer: Answer) -> None:
    """ComfyUI's shapes: a prompt id, or an error with its type and message."""
    assert answer.status == 200 or 400 <= answer.status < 500, answer
    told = answer.json
    if answer.status == 200:
        assert told.keys() == {"prompt_id", "number", "node_errors"}
        # It must not wait before the next one in the queue.
        assert target.post(f"/jobs/{told['prompt_id']}/cancel", b"").status == 200
    else:
        error = told["error"]
        assert isinstance(error["type"], str) and isinstance(error["message"], str)
        assert {"details", "extra_info"} <= error.keys()
    for found in told["node_errors"].values():
        assert found.keys() == {"errors", "dependent_outputs", "class_type"}
        for error in found["errors"]:
            assert isinstance(error["type"], str) and isinstance(error["message"], str)
            assert not error["extra_info"].get("traceback")
    assert target.is_alive()


@FUZZ
@given(st.binary(max_size=200))
def test_bytes(target: Target, body: bytes) -> None:
    check(target, target.post("/prompt", body))


@FUZZ
@given(JSON)
def test_any_json(target: Target, value: Any) -> None:
    check(target, target.post("/prompt", value))


@FUZZ
@given(REQUESTS)
def test_requests(target: Target, value: Any) -> None:
    check(target, target.post("/prompt", value))


@cache
def example() -> dict[str, Any]:
    return api_prompt(WORKFLOWS / "text_to_image.json")


@st.composite
def mutations(draw: st.DrawFn) -> dict[str, Any]:
    """The example's prompt with a few values, links, nodes or names changed."""
    prompt: Any = copy.deepcopy(example())
    for _ in range(draw(st.integers(1, 3))):
        path: Any = prompt
        while True:
            keys = list(path) if isinstance(path, dict) else list(range(len(path)))
            key = draw(st.sampled_from(keys))
            inner = path[key]
            if not (isinstance(inner, (dict, list)) and inner) or draw(st.integers(0, 3)) == 0:
                break
            path = inner
        match draw(st.sampled_from(["replace", "link", "delete", "rename"])):
            case "replace":
                path[key] = draw(JSON)
            case "link":
                path[key] = [draw(st.sampled_from(list(prompt) or ["1"])), draw(st.integers(-1, 6))]
            case "delete":
                del path[key]
            case "rename" if isinstance(path, dict):
                path[draw(st.text())] = path.pop(key)
        if not prompt:
            break
    return prompt


@FUZZ
@given(mutations())
def test_a_graph_with_mistakes(target: Target, prompt: Any) -> None:
    check(target, target.post("/prompt", {"prompt": prompt}))


@pytest.mark.parametrize("path", ["/queue", "/history", "/interrupt", "/free", "/jobs/cancel"])
def test_other_posts(target: Target, path: str) -> None:
    @FUZZ
    @given(JSON | st.dictionaries(st.sampled_from(["delete", "clear", "job_ids"]), JSON))
    def post(value: Any) -> None:
        answer = target.post(path, value)
        assert answer.status == 200 or 400 <= answer.status < 500
        if answer.body:
            json.loads(answer.body)

    post()
    assert target.is_alive()
