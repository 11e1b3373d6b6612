"""The nodes as ComfyUI describes them: what saved workflows rely on, and in words."""

from __future__ import annotations

import pytest

from ..test_contract import (
    EVERYWHERE,
    IN_COMFYUI,
    UPDATE_IN_COMFYUI,
    Infos,
    broken,
    contract,
    landed,
)
from ..test_packaging import english, texts
from .conftest import PACK, Comfy

pytestmark = [pytest.mark.comfyui, pytest.mark.slow]


@pytest.fixture
async def infos(comfyui: Comfy) -> Infos:
    """Of our nodes alone."""
    described: Infos = await comfyui.get("/object_info")
    own = f"custom_nodes.{PACK}"
    return {key: info for key, info in described.items() if info["python_module"] == own}


async def test_saved_workflows_still_find_what_they_name(infos: Infos) -> None:
    now = contract(infos)
    groups = landed()
    before = {**groups[EVERYWHERE], **groups[IN_COMFYUI]}
    problems = broken(before, now)
    assert not problems, "node definitions only grow:\n" + "\n".join(problems)
    assert now == before, f"they have grown; if that is meant: {UPDATE_IN_COMFYUI}"


async def test_english_says_what_the_nodes_declare(infos: Infos) -> None:
    said = texts("en", "nodeDefs.json")
    assert said.keys() == infos.keys()
    for node_id, info in infos.items():
        assert said[node_id] == english(info), node_id
