"""Saved workflows keep working: node definitions may grow, and nothing else.

`data/node_contract.json` is what has landed, the nodes that work everywhere and those that need
ComfyUI. Saved files name nodes, inputs and choices, number outputs, and list the values of widgets
by position. Nodes are read here as `/object_info` describes them.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from comfyui_wuerstchen.host.declarations import InputSpec
from comfyui_wuerstchen.host.folders import Folders
from comfyui_wuerstchen.host.registry import OWN_MODULE, default_nodes
from comfyui_wuerstchen.host.server.object_info import object_info

Infos = dict[str, dict[str, Any]]  # by node id, what /object_info says
Contract = dict[str, dict[str, Any]]

LANDED = Path(__file__).resolve().parent / "data" / "node_contract.json"
EVERYWHERE, IN_COMFYUI = "everywhere", "in ComfyUI"
UPDATE = "python tests/test_contract.py --update"
UPDATE_IN_COMFYUI = f"{UPDATE} object_info.json, with what ComfyUI answers at /object_info"

# Choices that lie on the user's disk.
FILES = (
    {(f"Wuerstchen{version}LoadPipeline", "folder") for version in ("", "V1")}
    | {
        (f"WuerstchenLoad{part}", "name")
        for part in ("StageC", "StageB", "StageA", "TextEncoder", "ImageEncoder")
    }
    | {("WuerstchenLoadLoRA", "lora_name")}
)


def own_infos() -> Infos:
    """Our nodes as the embedded host describes them."""
    nowhere = Path("nowhere")
    infos = object_info(default_nodes(), Folders(nowhere, nowhere, nowhere))
    own = {key: info for key, info in infos.items() if info["python_module"] == OWN_MODULE}
    return json.loads(json.dumps(own))


def contract(infos: Infos) -> Contract:
    return {node_id: _node_contract(info) for node_id, info in infos.items()}


def inputs_of(info: dict[str, Any]) -> list[InputSpec]:
    return [
        InputSpec(name, kind, options, section == "required")
        for section in ("required", "optional")
        for name, (kind, options) in info["input"].get(section, {}).items()
    ]


def _node_contract(info: dict[str, Any]) -> dict[str, Any]:
    outputs = zip(info["output_name"], info["output"], strict=True)
    return {
        "inputs": {
            spec.name: _input_contract(spec, from_disk=(info["name"], spec.name) in FILES)
            for spec in inputs_of(info)
        },
        "outputs": [list(output) for output in outputs],
        "output_node": info["output_node"],
    }


def _input_contract(spec: InputSpec, from_disk: bool) -> dict[str, Any]:
    said: dict[str, Any] = {"type": spec.kind, "required": spec.required, "widget": spec.is_widget}
    if spec.has_control:
        said["control_after_generate"] = True  # one more widget value behind this one
    if spec.is_widget:
        said["default"] = type(spec.default).__name__
    if spec.choices is not None and not from_disk:
        said["choices"] = spec.choices
    return said | {key: spec.options[key] for key in ("min", "max", "step") if key in spec.options}


def broken(old: Contract, new: Contract) -> list[str]:
    """What a saved workflow would no longer find, one line each."""
    lines = [f"{node_id}: the node is gone" for node_id in old if node_id not in new]
    for node_id in old.keys() & new.keys():
        lines += [f"{node_id}: {line}" for line in _broken_node(old[node_id], new[node_id])]
    return sorted(lines)


def _broken_node(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    lines = []
    if not _starts_with(new["outputs"], old["outputs"]):
        lines.append(f"outputs were {old['outputs']} and are {new['outputs']}; add at the end")
    if new["output_node"] != old["output_node"]:
        lines.append(f"output_node was {old['output_node']}")
    if not _starts_with(_widgets(new), _widgets(old)):
        lines.append(f"widgets were {_widgets(old)} and are {_widgets(new)}; add at the end")
    for name in new["inputs"].keys() - old["inputs"].keys():
        if new["inputs"][name]["required"]:
            lines.append(f"new input {name} is required; make it optional")
    for name, before in old["inputs"].items():
        now = new["inputs"].get(name)
        problems = ["is gone"] if now is None else _broken_input(before, now)
        lines += [f"input {name} {problem}" for problem in problems]
    return lines


def _broken_input(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    lines = [
        f"changed its {key} from {old.get(key)} to {new.get(key)}"
        for key in ("widget", "control_after_generate", "default")
        if old.get(key) != new.get(key)
    ]
    if not set(old["type"].split(",")) <= set(new["type"].split(",")):
        lines.append(f"took {old['type']} and takes {new['type']}")
    if new["required"] and not old["required"]:
        lines.append("was optional")
    # Without choices: they lie on the user's disk.
    if "choices" in old and not _starts_with(new.get("choices", []), old["choices"]):
        lines.append(f"offered {old['choices']}; add at the end, without renaming")
    for key, sign in (("min", 1), ("max", -1), ("step", 1)):
        if key in new and (key not in old or sign * new[key] > sign * old[key]):
            lines.append(f"narrowed its {key} from {old.get(key)} to {new[key]}")
    return lines


def _starts_with(sequence: list[Any], start: list[Any]) -> bool:
    return sequence[: len(start)] == start


def _widgets(node: dict[str, Any]) -> list[str]:
    return [name for name, said in node["inputs"].items() if said["widget"]]


def landed() -> dict[str, Contract]:
    return json.loads(LANDED.read_text(encoding="utf-8"))


def test_saved_workflows_still_find_what_they_name() -> None:
    problems = broken(landed()[EVERYWHERE], contract(own_infos()))
    assert not problems, "node definitions only grow:\n" + "\n".join(problems)


def test_what_is_new_has_been_written_down() -> None:
    same = contract(own_infos()) == landed()[EVERYWHERE]
    assert same, f"node definitions have grown; if that is meant: {UPDATE}"


def sampler(contract: Contract) -> dict[str, Any]:
    return contract["WuerstchenStageCSampler"]


def rename_choice(contract: Contract) -> None:
    sampler(contract)["inputs"]["scheduler"]["choices"][0] = "published"


def insert_widget(contract: Contract) -> None:
    inputs = sampler(contract)["inputs"]
    more = {"type": "INT", "required": False, "widget": True, "default": "int"}
    sampler(contract)["inputs"] = {"first": more, **inputs}


BREAKS: dict[str, Callable[[Contract], Any]] = {
    "the node is gone": lambda c: c.pop("WuerstchenStageCSampler"),
    "input cfg is gone": lambda c: sampler(c)["inputs"].pop("cfg"),
    "outputs were": lambda c: sampler(c)["outputs"].insert(0, ["first", "LATENT"]),
    "is required": lambda c: sampler(c)["inputs"].update(
        more={"type": "MASK", "required": True, "widget": False}
    ),
    "was optional": lambda c: sampler(c)["inputs"]["negative"].update(required=True),
    "takes FLOAT": lambda c: sampler(c)["inputs"]["steps"].update(type="FLOAT"),
    "changed its widget": lambda c: sampler(c)["inputs"]["steps"].update(widget=False),
    "changed its control": lambda c: sampler(c)["inputs"]["seed"].pop("control_after_generate"),
    "changed its default": lambda c: sampler(c)["inputs"]["cfg"].update(default="str"),
    "offered": rename_choice,
    "narrowed its min": lambda c: sampler(c)["inputs"]["steps"].update(min=2),
    "narrowed its max": lambda c: sampler(c)["inputs"]["steps"].update(max=999),
    "narrowed its step": lambda c: sampler(c)["inputs"]["denoise"].update(step=0.1),
    "widgets were": insert_widget,
    "output_node was": lambda c: sampler(c).update(output_node=True),
}


@pytest.mark.parametrize("said", BREAKS)
def test_a_break_is_named(said: str) -> None:
    changed = copy.deepcopy(landed()[EVERYWHERE])
    BREAKS[said](changed)
    assert any(said in line for line in broken(landed()[EVERYWHERE], changed))


def test_growth_breaks_nothing() -> None:
    grown = copy.deepcopy(landed()[EVERYWHERE])
    inputs = sampler(grown)["inputs"]
    grown["WuerstchenNew"] = copy.deepcopy(sampler(grown))
    sampler(grown)["outputs"].append(["more", "MASK"])
    inputs["steps"].update(min=0, max=5000)
    inputs["positive"].update(required=False, type="CONDITIONING,STRING")
    inputs["scheduler"]["choices"].append("newest")
    inputs["mask"] = {"type": "MASK", "required": False, "widget": False}
    inputs["eta"] = {"type": "FLOAT", "required": False, "widget": True, "default": "float"}
    assert broken(landed()[EVERYWHERE], grown) == []


def update(infos_of_comfyui: Infos | None) -> list[str]:
    """Writes what is declared now, unless something broke: then says what."""
    old = landed() if LANDED.exists() else {EVERYWHERE: {}, IN_COMFYUI: {}}
    new = {**old, EVERYWHERE: contract(own_infos())}
    if infos_of_comfyui is not None:
        only_there = {
            node_id: info
            for node_id, info in infos_of_comfyui.items()
            if node_id.startswith("Wuerstchen") and node_id not in new[EVERYWHERE]
        }
        new[IN_COMFYUI] = contract(only_there)
    problems = [line for group in old for line in broken(old[group], new[group])]
    if not problems:
        text = json.dumps(new, indent=1, ensure_ascii=False)
        LANDED.write_text(text + "\n", encoding="utf-8")
    return problems


if __name__ == "__main__" and sys.argv[1:2] == ["--update"]:
    given = [json.loads(Path(name).read_text(encoding="utf-8")) for name in sys.argv[2:3]]
    if lines := update(given[0] if given else None):
        sys.exit("not written; node definitions only grow:\n" + "\n".join(lines))
