"""ComfyUI's validation errors, as real transcripts have them."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from comfyui_wuerstchen.host.problems import describe_problems
from comfyui_wuerstchen.host.validate import validate


def prompt_of(**nodes):
    return {
        node_id.removeprefix("n"): {"class_type": class_type, "inputs": inputs}
        for node_id, (class_type, inputs) in nodes.items()
    }


WHITE = {"content": "WHITE", "height": 64}
HEIGHT = ["INT", {"default": 512, "min": 1, "max": 1024, "step": 1}]
PREVIEW = ("PreviewImage", {"images": ["1", 0]})


def failed(details=""):
    return {
        "type": "prompt_outputs_failed_validation",
        "message": "Prompt outputs failed validation",
        "details": details,
        "extra_info": {},
    }


def check(prompt, nodes, **options):
    result = validate(prompt, nodes.classes, **options)
    if result.error:
        assert list(describe_problems(prompt if isinstance(prompt, dict) else {}, result))
    return result


def test_a_good_prompt_runs(nodes, inside):
    result = check(prompt_of(n1=("Picture", WHITE), n5=PREVIEW), nodes)
    assert (result.outputs, result.error, result.node_errors) == (["5"], None, {})


@pytest.mark.parametrize("prompt", [None, {}, [], "x", 3])
def test_no_prompt(nodes, prompt):
    assert check(prompt, nodes).error == {
        "type": "no_prompt",
        "message": "No prompt provided",
        "details": "No prompt provided",
        "extra_info": {},
    }


def test_missing_node_types_are_all_listed(nodes):
    prompt = {
        "1": {"class_type": "Nope", "inputs": {}, "_meta": {"title": "T"}},
        "2": {"inputs": {}},
        "3": 7,
    }
    result = check(prompt, nodes)
    assert result.error == {
        "type": "missing_node_type",
        "message": "Node 'T' not found. The custom node may not be installed.",
        "details": "Node ID '#1'",
        "extra_info": {"node_id": "1", "class_type": "Nope", "node_title": "T"},
    }
    assert result.missing[1]["message"] == (
        "Node 'ID #2' has no class_type. The workflow may be corrupted or a custom node is missing."
    )
    assert len(result.missing) == len(list(describe_problems(prompt, result))) == 3


def test_no_outputs(nodes, inside):
    assert check(prompt_of(n1=("Picture", WHITE)), nodes).error == {
        "type": "prompt_no_outputs",
        "message": "Prompt has no outputs",
        "details": "",
        "extra_info": {},
    }


@pytest.mark.parametrize(
    ("inputs", "error"),
    [
        (
            {"content": "PURPLE", "height": 64},
            {
                "type": "value_not_in_list",
                "message": "Value not in list",
                "details": "content: 'PURPLE' not in ['WHITE', 'BLACK', 'NOISE']",
                "extra_info": {
                    "input_name": "content",
                    "input_config": [["WHITE", "BLACK", "NOISE"], {}],
                    "received_value": "PURPLE",
                },
            },
        ),
        (
            {"content": "WHITE", "height": 0},
            {
                "type": "value_smaller_than_min",
                "message": "Value 0 smaller than min of 1",
                "details": "height",
                "extra_info": {
                    "input_name": "height",
                    "input_config": HEIGHT,
                    "received_value": 0,
                },
            },
        ),
        (
            {"content": "WHITE", "height": 2000},
            {
                "type": "value_bigger_than_max",
                "message": "Value 2000 bigger than max of 1024",
                "details": "height",
                "extra_info": {
                    "input_name": "height",
                    "input_config": HEIGHT,
                    "received_value": 2000,
                },
            },
        ),
        (
            {"content": "WHITE", "height": "abc"},
            {
                "type": "invalid_input_type",
                "message": "Failed to convert an input value to a INT value",
                "details": "height, abc, invalid literal for int() with base 10: 'abc'",
                "extra_info": {
                    "input_name": "height",
                    "input_config": HEIGHT,
                    "received_value": "abc",
                    "exception_message": "invalid literal for int() with base 10: 'abc'",
                },
            },
        ),
    ],
)
def test_wrong_values(nodes, inside, inputs, error):
    result = check(prompt_of(n1=("Picture", inputs), n5=PREVIEW), nodes)
    assert result.error == failed()
    assert result.node_errors == {
        "1": {"errors": [error], "dependent_outputs": ["5"], "class_type": "Picture"}
    }


@pytest.mark.parametrize(
    ("link", "error"),
    [
        (
            None,
            {
                "type": "required_input_missing",
                "message": "Required input is missing",
                "details": "value",
                "extra_info": {"input_name": "value"},
            },
        ),
        (
            ["3"],
            {
                "type": "bad_linked_input",
                "message": "Bad linked input, must be a length-2 list of [node_id, slot_index]",
                "details": "value",
                "extra_info": {
                    "input_name": "value",
                    "input_config": ["*", {}],
                    "received_value": ["3"],
                },
            },
        ),
        (
            ["77", 0],
            {
                "type": "exception_during_validation",
                "message": "Exception when validating node",
                "details": "'77'",
                "extra_info": {
                    "exception_type": "KeyError",
                    "traceback": [],
                    "input_name": "value",
                    "received_value": ["77", 0],
                },
            },
        ),
    ],
)
def test_wrong_links(nodes, inside, link, error):
    inputs = {} if link is None else {"value": link}
    result = check(prompt_of(n5=("Show", inputs)), nodes)
    assert result.node_errors["5"]["errors"] == [error]
    assert result.error == failed(f"{error['message']}: {error['details']}")


def test_type_mismatch(nodes, inside):
    result = check(
        prompt_of(
            n3=("Mask", {"value": 0.5}),
            n5=("SaveImage", {"images": ["3", 0], "filename_prefix": "x"}),
        ),
        nodes,
    )
    error = result.node_errors["5"]["errors"][0]
    assert error["type"] == "return_type_mismatch"
    assert error["details"] == "images, received_type(MASK) mismatch input_type(IMAGE)"
    assert error["extra_info"]["received_type"] == "MASK"
    assert error["extra_info"]["linked_node"] == ["3", 0]


def test_own_check_of_a_class(nodes, inside):
    result = check(
        prompt_of(n1=("CheckOne", {"input1": "x"}), n5=("Show", {"value": ["1", 0]})), nodes
    )
    assert result.node_errors["1"]["errors"] == [
        {
            "type": "required_input_missing",
            "message": "Required input is missing",
            "details": "input2",
            "extra_info": {"input_name": "input2"},
        },
        {
            "type": "custom_validation_failed",
            "message": "Custom validation failed for node",
            "details": "input1 - Invalid type of input1: <class 'str'>",
            "extra_info": {"input_name": "input1"},
        },
    ]


def test_a_good_output_runs_beside_a_bad_one(nodes, inside):
    prompt = prompt_of(
        n1=("Picture", WHITE),
        n2=("Picture", {"content": "PURPLE", "height": 64}),
        n5=PREVIEW,
        n6=("PreviewImage", {"images": ["2", 0]}),
    )
    result = check(prompt, nodes)
    assert (result.outputs, result.error) == (["5"], None)
    assert result.node_errors["2"]["dependent_outputs"] == ["6"]


def test_targets_narrow_the_outputs(nodes, inside):
    prompt = prompt_of(n1=("Picture", WHITE), n5=PREVIEW, n6=PREVIEW)
    assert check(prompt, nodes, targets=["6"]).outputs == ["6"]
    assert check(prompt, nodes, targets=["1"]).error["type"] == "prompt_no_outputs"


def test_only_reachable_nodes_are_checked(nodes, inside):
    prompt = prompt_of(n1=("Picture", WHITE), n2=("Picture", {}), n5=PREVIEW)
    assert check(prompt, nodes).error is None


def test_cycle(nodes, inside):
    prompt = prompt_of(
        n1=("Add", {"a": ["2", 0], "b": 1}),
        n2=("Add", {"a": ["1", 0], "b": 1}),
        n5=("Show", {"value": ["1", 0]}),
    )
    result = check(prompt, nodes)
    assert result.node_errors["2"]["errors"] == [
        {
            "type": "dependency_cycle",
            "message": "Dependency cycle detected",
            "details": "1 (Add) -> 2 (Add) -> 1 (Add)",
            "extra_info": {"node_id": "2", "cycle_nodes": ["1", "2"]},
        }
    ]


def test_values_are_coerced_in_place(nodes, inside):
    prompt = prompt_of(n1=("Picture", {"content": "WHITE", "height": "64"}), n5=PREVIEW)
    prompt["2"] = {"class_type": "Text", "inputs": {"text": {"__value__": 5}}}
    prompt["6"] = {"class_type": "Show", "inputs": {"value": ["2", 0]}}
    assert check(prompt, nodes).error is None
    assert prompt["1"]["inputs"]["height"] == 64
    assert prompt["2"]["inputs"]["text"] == "5"


def test_a_chain_of_ten_thousand_nodes(nodes, inside):
    prompt = {"0": {"class_type": "Add", "inputs": {"a": 0, "b": 1}}}
    for i in range(1, 10_000):
        prompt[str(i)] = {"class_type": "Add", "inputs": {"a": [str(i - 1), 0], "b": 1}}
    prompt["end"] = {"class_type": "Show", "inputs": {"value": ["9999", 0]}}
    assert check(prompt, nodes).outputs == ["end"]


def test_all_problems_at_once_in_words(nodes, inside):
    prompt = prompt_of(
        n1=("Picture", {"content": "PURPLE", "height": 0}), n5=PREVIEW, n6=("SaveImage", {})
    )
    lines = list(describe_problems(prompt, check(prompt, nodes)))
    assert lines == [
        "Node 1 'Picture': input 'content' got 'PURPLE'; expected WHITE, BLACK, NOISE.",
        "Node 1 'Picture': input 'height' got 0; expected a whole number, 1 to 1024.",
        "Node 6 'SaveImage': input 'images' is missing; link it or give it a value.",
        "Node 6 'SaveImage': input 'filename_prefix' is missing; link it or give it a value.",
    ]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
NODE = st.fixed_dictionaries(
    {
        "class_type": st.sampled_from(
            ["Picture", "Show", "Add", "SaveImage", "LoadImage", "CheckOne"]
        ),
        "inputs": st.dictionaries(
            st.sampled_from(["value", "a", "b", "content", "height", "images", "image", "input1"]),
            JSON | st.tuples(st.sampled_from("1234"), st.integers(-1, 2)).map(list),
        ),
    }
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(prompt=JSON | st.dictionaries(st.sampled_from("1234"), NODE | JSON, min_size=1))
def test_any_json_gets_an_answer(nodes, inside, prompt):
    result = check(prompt, nodes)
    assert bool(result.error) != bool(result.outputs)
