"""From the canvas's workflow to the prompt, feature by feature."""

import json

import pytest
from PIL import Image, PngImagePlugin

from comfyui_wuerstchen.host.graph_file import graph_from_json, load_graph
from comfyui_wuerstchen.host.workflow_graph import GraphFileError


def node(node_id, kind, values=None, inputs=(), outputs=(), **more):
    """`inputs` are (name, type, link id or None); `outputs` are types."""
    raw = {
        "id": node_id,
        "type": kind,
        "mode": 0,
        "inputs": [{"name": n, "type": t, "link": link} for n, t, link in inputs],
        "outputs": [{"name": t, "type": t, "links": []} for t in outputs],
        **more,
    }
    return raw if values is None else {**raw, "widgets_values": values}


def workflow(nodes, links=(), **more):
    return {"version": 0.4, "nodes": nodes, "links": [list(link) for link in links], **more}


def convert(nodes, raw):
    return graph_from_json(raw, "test", nodes).prompt


def inputs_of(prompt):
    return {node_id: one["inputs"] for node_id, one in prompt.items()}


SHOW = node(9, "Show", None, [("value", "*", 9)])
SAMPLER_INPUTS = {
    "seed": 5,
    "steps": 30,
    "cfg": 2.5,
    "sampler_name": "ddim",
    "tiled": True,
}


@pytest.mark.parametrize(
    "values",
    [
        [5, "fixed", 30, 2.5, "ddim", True],
        [5, 30, 2.5, "ddim", True],  # saved without the control value
        [5, "randomize", 30, 2.5, "ddim", 0.7, True],  # before 1.16: with the forced socket's
        SAMPLER_INPUTS,
    ],
)
def test_widgets_by_place_or_name(nodes, values):
    prompt = convert(nodes, workflow([node(1, "Sampler", values)]))
    assert prompt["1"]["inputs"] == SAMPLER_INPUTS


def test_named_values_are_preferred(nodes):
    raw = node(1, "Sampler", [5, "fixed", 30, 2.5, "ddim", True], widgets_values_named={"steps": 7})
    assert convert(nodes, workflow([raw]))["1"]["inputs"] == {**SAMPLER_INPUTS, "steps": 7}


def test_values_that_were_not_saved_have_their_default(nodes):
    assert convert(nodes, workflow([node(1, "Sampler", [5, "fixed", 30])]))["1"]["inputs"] == {
        "seed": 5,
        "steps": 30,
        "cfg": 4.0,
        "sampler_name": "ddpm",
        "tiled": False,
    }


def test_an_upload_button_takes_a_place(nodes, inside):
    prompt = convert(nodes, workflow([node(1, "LoadImage", ["a.png", "image"])]))
    assert prompt["1"]["inputs"] == {"image": "a.png"}


@pytest.mark.parametrize("as_objects", [False, True])
def test_links_and_a_converted_widget(nodes, as_objects):
    links = [[4, 3, 0, 1, 1, "INT"], [9, 1, 0, 9, 0, "LATENT"]]
    if as_objects:
        keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
        links = [dict(zip(keys, link, strict=True)) for link in links]
    raw = workflow(
        [
            node(3, "PrimitiveInt", [12, "fixed"], outputs=["INT"]),
            node(
                1,
                "Sampler",
                [5, "fixed", 30, 2.5, "ddim", True],
                [("model", "MODEL", None), ("steps", "INT", 4)],
                ["LATENT"],
            ),
            SHOW,
        ],
    )
    raw["links"] = links
    prompt = convert(nodes, raw)
    assert inputs_of(prompt) == {
        "3": {"value": 12},
        "1": {**SAMPLER_INPUTS, "steps": ["3", 0]},
        "9": {"value": ["1", 0]},
    }
    assert prompt["3"]["_meta"] == {"title": "Int"}


def test_titles_are_kept(nodes):
    raw = workflow([node(1, "Text", ["x"], title="prompt")])
    assert convert(nodes, raw)["1"]["_meta"] == {"title": "prompt"}


def test_reroutes_and_notes_vanish(nodes):
    raw = workflow(
        [
            node(1, "Text", ["x"], outputs=["STRING"]),
            node(2, "Reroute", None, [("", "*", 1)], ["STRING"]),
            node(3, "Reroute", None, [("", "*", 2)], ["STRING"]),
            node(4, "Note", ["read me"]),
            node(5, "MarkdownNote", ["read me"]),
            SHOW,
        ],
        [(1, 1, 0, 2, 0, "*"), (2, 2, 0, 3, 0, "*"), (9, 3, 0, 9, 0, "*")],
        extra={"reroutes": [{"id": 1, "pos": [0, 0], "linkIds": [9]}]},
    )
    assert inputs_of(convert(nodes, raw)) == {"1": {"text": "x"}, "9": {"value": ["1", 0]}}


def test_muted_nodes_and_links_to_them_are_dropped(nodes):
    raw = workflow(
        [
            node(1, "Text", ["x"], outputs=["STRING"], mode=2),
            node(2, "Text", ["kept"], [("text", "STRING", 2)], ["STRING"]),
            SHOW,
        ],
        [(2, 1, 0, 2, 0, "STRING"), (9, 2, 0, 9, 0, "*")],
    )
    # The widget under a link to nothing speaks again.
    assert inputs_of(convert(nodes, raw)) == {"2": {"text": "kept"}, "9": {"value": ["2", 0]}}


def bypass(inputs, outputs, slot, wanted):
    """Node 5 is bypassed; sources 10, 11, … feed its inputs; its output `slot` feeds node 9."""
    sources = [node(10 + i, "Text", ["x"], outputs=[t]) for i, t in enumerate(inputs)]
    links = [(10 + i, 10 + i, 0, 5, i, t) for i, t in enumerate(inputs)]
    middle = node(
        5,
        "Anything",
        None,
        [(f"in{i}", t, 10 + i) for i, t in enumerate(inputs)],
        outputs,
        mode=4,
    )
    show = node(9, "Show", None, [("value", wanted, 9)])
    return workflow([*sources, middle, show], [*links, (9, 5, slot, 9, 0, wanted)])


@pytest.mark.parametrize(
    ("inputs", "outputs", "slot", "wanted", "source"),
    [
        (["IMAGE", "MASK"], ["IMAGE", "MASK"], 1, "MASK", "11"),  # the same place
        (["MODEL", "IMAGE", "IMAGE"], ["IMAGE"], 0, "IMAGE", "11"),  # the first of that type
        (["IMAGE", "IMAGE"], ["MODEL", "IMAGE"], 1, "IMAGE", "11"),  # same place before first
        (["MODEL", "IMAGE,MASK"], ["IMAGE"], 0, "IMAGE", "11"),  # a union that fits
        (["MODEL"], ["IMAGE"], 0, "IMAGE", None),  # nothing fits
        (["MODEL", "CLIP"], ["IMAGE", "MASK"], 1, "*", "11"),  # the reader takes anything
    ],
)
def test_bypassed_nodes_let_through(nodes, inputs, outputs, slot, wanted, source):
    prompt = convert(nodes, bypass(inputs, outputs, slot, wanted))
    assert prompt["9"]["inputs"] == ({} if source is None else {"value": [source, 0]})


def test_primitive_nodes_are_inlined(nodes):
    raw = workflow(
        [
            node(1, "PrimitiveNode", [77, "randomize"], outputs=["INT"]),
            node(2, "Sampler", [5, "fixed", 30], [("seed", "INT", 1)], ["LATENT"]),
        ],
        [(1, 1, 0, 2, 0, "INT")],
    )
    prompt = convert(nodes, raw)
    assert prompt.keys() == {"2"} and prompt["2"]["inputs"]["seed"] == 77


def test_list_values_are_wrapped(nodes):
    raw = workflow([node(1, "Text", [["a", 1]])])
    assert convert(nodes, raw)["1"]["inputs"] == {"text": {"__value__": ["a", 1]}}


# A subgraph: its input 0 `text` leads to a Text node's widget, input 1 `n` to an Add node's
# socket; output 0 is the Text, output 1 the Add.
INNER = {
    "id": "sub-1",
    "name": "inner",
    "inputs": [
        {"id": "a", "name": "text", "type": "STRING"},
        {"id": "b", "name": "n", "type": "INT"},
    ],
    "outputs": [
        {"id": "c", "name": "o", "type": "STRING"},
        {"id": "d", "name": "m", "type": "INT"},
    ],
    "nodes": [
        node(1, "Text", ["inner text"], [("text", "STRING", 1)], ["STRING"]),
        node(2, "Add", [3, 4], [("a", "INT", 2)], ["INT"]),
    ],
    "links": [
        {"id": 1, "origin_id": -10, "origin_slot": 0, "target_id": 1, "target_slot": 0},
        {"id": 2, "origin_id": -10, "origin_slot": 1, "target_id": 2, "target_slot": 0},
        {"id": 3, "origin_id": 1, "origin_slot": 0, "target_id": -20, "target_slot": 0},
        {"id": 4, "origin_id": 2, "origin_slot": 0, "target_id": -20, "target_slot": 1},
    ],
}


def fresh_inner():
    return json.loads(json.dumps(INNER))


def with_subgraph(host, *others, links=(), definitions=None):
    return workflow(
        [host, *others, SHOW],
        [(9, 5, 1, 9, 0, "*"), *links],
        definitions={"subgraphs": definitions or [fresh_inner()]},
    )


def test_subgraphs_are_unfolded(nodes):
    host = node(5, "sub-1", None, [("n", "INT", 1)], ["STRING", "INT"])
    source = node(3, "MakeList", [2], outputs=["INT"])
    raw = with_subgraph(host, source, links=[(1, 3, 0, 5, 0, "INT")])
    assert inputs_of(convert(nodes, raw)) == {
        "5:1": {"text": "inner text"},
        "5:2": {"a": ["3", 0], "b": 4},
        "3": {"count": 2},
        "9": {"value": ["5:2", 0]},
    }


@pytest.mark.parametrize(
    "host",
    [
        # `n` leads to a widget too, so the values stand in the order text, n.
        {"widgets_values": ["outer text", 8]},
        {"widgets_values_named": {"text": "outer text", "n": 8}},
        {
            "widgets_values": [8, "outer text"],
            "properties": {"proxyWidgets": [["2", "a"], ["-1", "text"]]},
        },
        {
            "widgets_values": ["outer text", 8],
            "properties": {"proxyWidgets": [["1", "text"], ["2", "a"]]},
        },
    ],
)
def test_promoted_widgets_of_an_instance(nodes, host):
    raw = with_subgraph(node(5, "sub-1", None, [], ["STRING", "INT"], **host))
    prompt = convert(nodes, raw)
    assert prompt["5:1"]["inputs"] == {"text": "outer text"}
    assert prompt["5:2"]["inputs"] == {"a": 8, "b": 4}


def test_proxied_widgets_without_a_subgraph_input(nodes):
    host = node(5, "sub-1", [70], [], ["STRING", "INT"], properties={"proxyWidgets": [["2", "b"]]})
    assert convert(nodes, with_subgraph(host))["5:2"]["inputs"] == {"a": 3, "b": 70}


def outer_definition(**host):
    """A subgraph around `sub-1`; its only input leads to the inner `text`."""
    return {
        "id": "sub-2",
        "inputs": [{"id": "x", "name": "words", "type": "STRING"}],
        "outputs": [{"name": "o", "type": "STRING"}, {"name": "m", "type": "INT"}],
        "nodes": [node(7, "sub-1", None, [("text", "STRING", 1)], ["STRING", "INT"], **host)],
        "links": [
            {"id": 1, "origin_id": -10, "origin_slot": 0, "target_id": 7, "target_slot": 0},
            {"id": 2, "origin_id": 7, "origin_slot": 1, "target_id": -20, "target_slot": 1},
        ],
    }


def test_nested_subgraphs(nodes):
    host = node(5, "sub-2", ["deep"], [], ["STRING", "INT"])
    raw = with_subgraph(host, definitions=[fresh_inner(), outer_definition()])
    assert inputs_of(convert(nodes, raw)) == {
        "5:7:1": {"text": "deep"},
        "5:7:2": {"a": 3, "b": 4},
        "9": {"value": ["5:7:2", 0]},
    }


def test_proxies_reach_through_nested_subgraphs(nodes):
    inner_host = {"properties": {"proxyWidgets": [["2", "b"]]}, "widgets_values": [1]}
    host = node(5, "sub-2", [70], [], ["STRING", "INT"], properties={"proxyWidgets": [["7", "b"]]})
    raw = with_subgraph(host, definitions=[fresh_inner(), outer_definition(**inner_host)])
    assert convert(nodes, raw)["5:7:2"]["inputs"] == {"a": 3, "b": 70}


def test_two_instances_have_their_own_values(nodes):
    raw = with_subgraph(
        node(5, "sub-1", ["one", 1], [], ["STRING", "INT"]),
        node(6, "sub-1", ["two", 2], [], ["STRING", "INT"]),
    )
    prompt = convert(nodes, raw)
    assert (prompt["5:1"]["inputs"], prompt["6:1"]["inputs"]) == ({"text": "one"}, {"text": "two"})


@pytest.mark.parametrize("mode", [2, 4])
def test_muted_and_bypassed_subgraphs_are_not_unfolded(nodes, mode):
    host = node(5, "sub-1", None, [("n", "INT", 1)], ["STRING", "INT"], mode=mode)
    source = node(3, "MakeList", [2], outputs=["INT"])
    raw = with_subgraph(host, source, links=[(1, 3, 0, 5, 0, "INT")])
    raw["nodes"][-1] = node(9, "Show", None, [("value", "INT", 9)])
    expected = {} if mode == 2 else {"value": ["3", 0]}
    assert inputs_of(convert(nodes, raw)) == {"3": {"count": 2}, "9": expected}


def test_a_subgraph_inside_itself_is_named(nodes):
    inner = fresh_inner()
    inner["nodes"].append(node(8, "sub-1"))
    with pytest.raises(GraphFileError, match="contains itself"):
        convert(nodes, with_subgraph(node(5, "sub-1"), definitions=[inner]))


def test_reroutes_in_a_circle_are_named(nodes):
    raw = workflow(
        [
            node(2, "Reroute", None, [("", "*", 1)], ["*"]),
            node(3, "Reroute", None, [("", "*", 2)], ["*"]),
            SHOW,
        ],
        [(1, 3, 0, 2, 0, "*"), (2, 2, 0, 3, 0, "*"), (9, 3, 0, 9, 0, "*")],
    )
    with pytest.raises(GraphFileError, match="circle"):
        convert(nodes, raw)


# Values are written back to where the workflow holds them.


def test_a_change_reaches_the_workflow(nodes):
    raw = workflow(
        [
            node(1, "Sampler", [5, "fixed", 30], widgets_values_named={"seed": 5, "steps": 30}),
            node(2, "PrimitiveNode", [2.0], outputs=["FLOAT"]),
            node(3, "Sampler", [1, "fixed", 1, 1.0], [("cfg", "FLOAT", 1)]),
        ],
        [(1, 2, 0, 3, 0, "FLOAT")],
    )
    graph = graph_from_json(raw, "test", nodes)
    graph.set("1", "steps", 7)
    graph.set("3", "cfg", 9.5)
    assert graph.prompt["1"]["inputs"]["steps"] == 7
    assert graph.workflow["nodes"][0]["widgets_values"] == [5, "fixed", 7]
    assert graph.workflow["nodes"][0]["widgets_values_named"] == {"seed": 5, "steps": 7}
    assert graph.workflow["nodes"][1]["widgets_values"] == [9.5]
    again = graph_from_json(graph.workflow, "test", nodes)
    assert again.prompt == graph.prompt


def test_a_change_reaches_a_promoted_widget(nodes):
    graph = graph_from_json(
        with_subgraph(node(5, "sub-1", ["one", 1], [], ["STRING", "INT"])), "test", nodes
    )
    graph.set("5:1", "text", "new")
    assert graph.workflow["nodes"][0]["widgets_values"] == ["new", 1]


# Files.


def save_png(path, **chunks):
    about = PngImagePlugin.PngInfo()
    for key, value in chunks.items():
        about.add_text(key, json.dumps(value))
    Image.new("RGB", (4, 4)).save(path, pnginfo=about)
    return path


PROMPT = {"1": {"class_type": "Text", "inputs": {"text": "from the prompt"}}}
WORKFLOW = workflow([node(1, "Text", ["from the workflow"])])


def test_a_picture_carries_its_graph(nodes, tmp_path):
    both = load_graph(save_png(tmp_path / "a.png", prompt=PROMPT, workflow=WORKFLOW), nodes)
    assert both.prompt == PROMPT and both.workflow == WORKFLOW
    both.set("1", "text", "new")
    assert both.workflow["nodes"][0]["widgets_values"] == ["new"]
    only = load_graph(save_png(tmp_path / "b.png", workflow=WORKFLOW), nodes)
    assert only.prompt["1"]["inputs"] == {"text": "from the workflow"}


def test_a_prompt_file_and_a_request_body(nodes, tmp_path):
    path = tmp_path / "a.json"
    body = {"prompt": PROMPT, "extra_data": {"extra_pnginfo": {"workflow": WORKFLOW}}}
    for content, kept in ((PROMPT, None), (body, WORKFLOW)):
        path.write_text(json.dumps(content), encoding="utf-8")
        graph = load_graph(path, nodes)
        assert (graph.prompt, graph.workflow) == (PROMPT, kept)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "neither JSON nor a PNG"),
        (b"[" * 100_000, "neither JSON nor a PNG"),
        (b"{}", "not a graph"),
        (b'{"nodes": 3}', "not a graph"),
        (b'{"nodes": [{"id": 1}]}', "damaged"),
        (b'{"nodes": [], "links": []}', "no node that runs"),
        (b"\x89PNG\r\n\x1a\nxx", "damaged PNG"),
    ],
)
def test_files_that_are_no_graph(nodes, tmp_path, content, words):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(GraphFileError, match=words) as error:
        load_graph(path, nodes)
    assert "\n" not in str(error.value)


def test_a_missing_file_and_a_plain_picture(nodes, tmp_path):
    with pytest.raises(GraphFileError, match="Cannot read"):
        load_graph(tmp_path / "none.json", nodes)
    with pytest.raises(GraphFileError, match="carries no graph"):
        load_graph(save_png(tmp_path / "a.png"), nodes)
