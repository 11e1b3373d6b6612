"""The stock nodes on conditionings and plain values, and the canvas's own virtual nodes."""

import pytest
import torch

from comfyui_wuerstchen.host.graph_file import graph_from_json
from comfyui_wuerstchen.host.stock.conditioning import (
    ConditioningAverage,
    ConditioningCombine,
    ConditioningConcat,
    ConditioningSetTimestepRange,
    ConditioningZeroOut,
)
from comfyui_wuerstchen.host.stock.preview_any import as_text
from comfyui_wuerstchen.wuerstchen_core.errors import WireError


def text(tokens, seed=0, width=6, **options):
    generator = torch.Generator().manual_seed(seed)
    return [[torch.randn(1, tokens, width, generator=generator), options]]


@pytest.mark.parametrize("tokens", [3, 7, 9])
def test_an_average_cuts_or_fills_the_second(tokens):
    one, other = text(7, strength=0.5), text(tokens, seed=1)
    ((states, options),) = ConditioningAverage().average(one, other, 0.25)[0]
    filled = torch.zeros(1, 7, 6)
    filled[:, :tokens] = other[0][0][:, :7]
    assert torch.allclose(states, one[0][0] * 0.25 + filled * 0.75)
    assert options == {"strength": 0.5} and options is not one[0][1]


def test_pooled_states_are_averaged_too():
    ones, zeros = torch.ones(1, 5), torch.zeros(1, 5)
    mixed = ConditioningAverage().average(
        text(3, pooled_output=ones), text(3, pooled_output=zeros), 0.75
    )
    assert torch.equal(mixed[0][0][1]["pooled_output"], ones * 0.75)
    inherited = ConditioningAverage().average(text(3), text(3, pooled_output=ones), 0.75)
    assert torch.equal(inherited[0][0][1]["pooled_output"], ones)


def test_concatenating_and_combining():
    one, other = text(3, area=1), text(4, seed=1) + text(2, seed=2)
    ((states, options),) = ConditioningConcat().join(one, other)[0]
    assert torch.equal(states, torch.cat([one[0][0], other[0][0]], 1)) and options == {"area": 1}
    (both,) = ConditioningCombine().combine(one, other)
    assert [entry[0].shape[1] for entry in both] == [3, 4, 2] and len(one) == 1


def test_that_only_the_first_is_read_is_said(caplog):
    ConditioningConcat().join(text(3), text(4) + text(2))
    assert "holds 2 conditionings" in caplog.text


@pytest.mark.parametrize(
    "mix",
    [
        lambda a, b: ConditioningConcat().join(a, b),
        lambda a, b: ConditioningAverage().average(a, b, 0.5),
    ],
)
def test_texts_of_two_encoders_do_not_mix(mix):
    with pytest.raises(WireError, match="1024 wide, conditioning_to 1280"):
        mix(text(3, width=1280), text(3, width=1024))


def test_zeroing_out():
    given = text(3, pooled_output=torch.ones(1, 5), strength=0.5)
    ((states, options),) = ConditioningZeroOut().zero_out(given)[0]
    assert states.shape == (1, 3, 6) and not states.any()
    assert not options["pooled_output"].any() and options["strength"] == 0.5
    assert given[0][0].any() and given[0][1]["pooled_output"].all()


def test_a_range_of_steps():
    ((_, options),) = ConditioningSetTimestepRange().set_range(text(3, a=1), 0.25, 0.5)[0]
    assert options == {"a": 1, "start_percent": 0.25, "end_percent": 0.5}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "None"),
        ("ä\nb", "ä\nb"),
        (True, "True"),
        (0.1, "0.1"),
        ([1, "ä"], '[\n    1,\n    "ä"\n]'),
        (torch.tensor([1.0, 2.0]), "tensor([1., 2.])"),
        ({"samples": torch.zeros(1)}, "{'samples': tensor([0.])}"),
    ],
)
def test_anything_as_text(value, shown):
    assert as_text(value) == shown


def test_a_list_that_contains_itself_as_text():
    endless = [1]
    endless.append(endless)
    assert as_text(endless) == "[1, [...]]"


def test_a_preview_in_a_graph_shows_and_gives_the_text(run):
    result, events = run(
        {
            "1": ("PrimitiveInt", {"value": 7}),
            "2": ("PreviewAny", {"source": ["1", 0]}),
            "3": ("PreviewAny", {"source": ["2", 0]}),
        }
    )
    assert result.status == "success", result
    shown = {data["node"]: data["output"]["text"] for kind, data in events if kind == "executed"}
    assert {node: list(words) for node, words in shown.items()} == {"2": ["7"], "3": ["7"]}


def node(node_id, kind, values=None, inputs=(), outputs=()):
    raw = {
        "id": node_id,
        "type": kind,
        "inputs": [{"name": n, "type": t, "link": link} for n, t, link in inputs],
        "outputs": [{"name": t, "type": t, "links": []} for t in outputs],
    }
    return raw if values is None else {**raw, "widgets_values": values}


def test_the_canvass_own_nodes_vanish_and_leave_their_values(nodes):
    """PrimitiveNode, Reroute, Note and MarkdownNote exist only on the canvas."""
    graph = {
        "version": 0.4,
        "nodes": [
            node(1, "PrimitiveNode", [640, "fixed"], outputs=["INT"]),
            node(2, "PrimitiveNode", ["area", "fixed", ""], outputs=["COMBO"]),
            node(3, "EmptyImage", [8, 8, 1, 0], outputs=["IMAGE"]),
            node(4, "Reroute", None, [("", "*", 3)], ["IMAGE"]),
            node(
                5,
                "ImageScale",
                ["lanczos", 512, 0, "disabled"],
                [("image", "IMAGE", 4), ("upscale_method", "COMBO", 2), ("width", "INT", 1)],
                ["IMAGE"],
            ),
            node(6, "Note", ["a note"]),
            node(7, "MarkdownNote", ["# a note"]),
        ],
        "links": [
            [1, 1, 0, 5, 2, "INT"],
            [2, 2, 0, 5, 1, "COMBO"],
            [3, 3, 0, 4, 0, "IMAGE"],
            [4, 4, 0, 5, 0, "IMAGE"],
        ],
    }
    prompt = graph_from_json(graph, "test", nodes).prompt
    assert prompt.keys() == {"3", "5"}
    assert prompt["5"]["inputs"] == {
        "image": ["3", 0],
        "upscale_method": "area",
        "width": 640,
        "height": 0,
        "crop": "disabled",
    }
