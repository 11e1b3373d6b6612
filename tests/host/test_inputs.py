"""`--set`: which input a key means, and which values it can have."""

import pytest

from comfyui_wuerstchen.host.graph_file import GraphFile
from comfyui_wuerstchen.host.graph_inputs import SetError, apply_settings, list_inputs


def make_graph():
    def one(class_type, title, **inputs):
        return {"class_type": class_type, "inputs": inputs, "_meta": {"title": title}}

    return GraphFile(
        {
            "1": one("Text", "prompt", text="a"),
            "2": one("Text", "negative", text="b"),
            "3": one(
                "Sampler", "Stage C", seed=1, steps=2, cfg=1.0, sampler_name="ddpm", tiled=False
            ),
            "4": one(
                "Sampler", "Stage B v1.5", seed=1, steps=["6", 0], cfg=1.0, sampler_name="ddpm"
            ),
            "5:1": one("Picture", "Picture", content="WHITE", height=8, seed=0),
            "6": one("PrimitiveInt", "number", value=3),
        }
    )


@pytest.mark.parametrize(
    ("setting", "node_id", "name", "value"),
    [
        ("prompt=x=y", "1", "text", "x=y"),  # a title; the value may hold '='
        ("negative=", "2", "text", ""),
        ("Stage C.seed=7", "3", "seed", 7),
        ("stage c.seed=7", "3", "seed", 7),
        ("Stage B v1.5.seed=8", "4", "seed", 8),
        ("3.cfg=2", "3", "cfg", 2.0),
        ("5:1.height=9", "5:1", "height", 9),
        ("height=9", "5:1", "height", 9),  # a unique input name
        ("Picture.content=BLACK", "5:1", "content", "BLACK"),
        ("3.tiled=yes", "3", "tiled", True),
        ("3.tiled=false", "3", "tiled", False),
        ("number=5", "6", "value", 5),
        ("3.sampler_name=ddim", "3", "sampler_name", "ddim"),
    ],
)
def test_a_key_finds_its_input(nodes, inside, setting, node_id, name, value):
    graph = make_graph()
    apply_settings(graph, nodes, [setting])
    got = graph.prompt[node_id]["inputs"][name]
    assert got == value and type(got) is type(value)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("seed=7", "'3.seed' (Stage C.seed), '4.seed' (Stage B v1.5.seed), '5:1.seed'"),
        ("text=7", "'1.text' (prompt.text), '2.text' (negative.text)"),
        ("Stage C=7", "'3.seed' (Stage C.seed), '3.steps'"),
        ("Sampler.seed=7", "say which: '3.seed'"),
        ("nothing=7", "has no input 'nothing'; it has 'prompt.text'"),
        ("Stage B v1.5.steps=7", "is fed by node 'number' (6); set that one instead"),
        ("Stage C", "has no '='"),
        ("3.steps=many", "Stage C.steps (node 3): got 'many'; expected a whole number, 1 to 100."),
        ("3.steps=0", "got '0'; expected a whole number, 1 to 100."),
        ("3.cfg=nan", "got 'nan'; expected a number, 0.0 to 30.0."),
        ("3.tiled=perhaps", "expected true or false"),
        ("3.sampler_name=euler", "got 'euler'; expected ddpm, ddim."),
    ],
)
def test_a_wrong_setting_says_what_is_allowed(nodes, inside, setting, words):
    with pytest.raises(SetError) as error:
        apply_settings(make_graph(), nodes, [setting])
    assert words in str(error.value)


def test_all_wrong_settings_are_told_at_once(nodes, inside):
    with pytest.raises(SetError) as error:
        apply_settings(make_graph(), nodes, ["nothing=1", "prompt=x", "3.steps=0"])
    assert len(str(error.value).splitlines()) == 2


def test_a_file_of_the_user_is_taken_by_its_path(nodes, inside, tmp_path, monkeypatch):
    (tmp_path / "mine.png").touch()
    (inside.input / "known.png").touch()
    graph = GraphFile({"1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}}})
    monkeypatch.chdir(tmp_path)
    name = "mine-e3b0c44298fc.png"  # with a mark of its content, here of nothing
    assert apply_settings(graph, nodes, ["image=mine.png"]) == {name: tmp_path / "mine.png"}
    assert graph.prompt["1"]["inputs"] == {"image": name}
    assert apply_settings(graph, nodes, ["LoadImage.image=known.png"]) == {}
    with pytest.raises(SetError, match="there is no file 'none.png'"):
        apply_settings(graph, nodes, ["image=none.png"])


def test_the_list_holds_what_can_be_set(nodes, inside):
    listed = [(one.name, one.value) for one in list_inputs(make_graph().prompt, nodes)]
    assert ("Stage C.seed", 1) in listed and ("Stage B v1.5.tiled", False) in listed
    assert "Stage B v1.5.steps" not in [name for name, _ in listed]
