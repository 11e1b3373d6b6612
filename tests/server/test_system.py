"""The machine, the abilities, the log, the folders."""

import json
import logging
import os
from typing import Any

import pytest

from comfyui_wuerstchen.host.server.features import FEATURES

from .conftest import Running

logger = logging.getLogger("comfyui_wuerstchen.tests")


async def test_the_machine(running: Running) -> None:
    stats = await running.get("/api/system_stats")
    system = stats["system"]
    assert "--disable-api-nodes" in system["argv"]
    assert 0 < system["ram_free"] < system["ram_total"]
    assert system.keys() == {
        "os",
        "ram_total",
        "ram_free",
        "comfyui_version",
        "required_frontend_version",
        "installed_templates_version",
        "required_templates_version",
        "comfy_package_versions",
        "python_version",
        "pytorch_version",
        "embedded_python",
        "deploy_environment",
        "argv",
    }
    (device,) = stats["devices"]
    assert device.keys() == {
        "name",
        "type",
        "index",
        "vram_total",
        "vram_free",
        "torch_vram_total",
        "torch_vram_free",
    }
    assert device["vram_total"] >= device["vram_free"] > 0
    assert os.sep not in json.dumps(system["argv"])


async def test_the_abilities_are_those_told_over_the_websocket(running: Running) -> None:
    listener = await running.listen()
    assert await listener.until("feature_flags") == FEATURES
    assert await running.get("/api/features") == FEATURES


async def test_the_log(running: Running) -> None:
    logger.warning("the first line")
    text = await running.get("/internal/logs")
    assert text.endswith(" - WARNING: the first line\n")
    raw = await running.get("/internal/logs/raw")
    assert raw["entries"][-1]["m"] == "WARNING: the first line\n"
    assert raw["size"].keys() == {"cols", "rows"}


async def test_new_lines_go_to_those_who_want_them(running: Running) -> None:
    wants, other = await running.listen("wants"), await running.listen("other")
    for one in (wants, other):
        await one.until("feature_flags")
    body: dict[str, Any] = {"clientId": "wants", "enabled": True}
    assert (await running.ask("PATCH", "/internal/logs/subscribe", json=body))[0] == 200
    logger.warning("a new line")
    told = await wants.until("logs")
    assert [entry["m"] for entry in told["entries"]] == ["WARNING: a new line\n"]

    await running.ask("PATCH", "/internal/logs/subscribe", json={**body, "enabled": False})
    logger.warning("another line")
    # What comes after the line to everyone shows that it has not come.
    await running.ask("POST", "/queue", json={"clear": True})
    for one in (wants, other):
        await one.until("status")
    assert [message["type"] for message in wants.heard if message["type"] == "logs"] == ["logs"]
    assert all(message["type"] != "logs" for message in other.heard)


@pytest.mark.parametrize(
    "body", [{}, {"clientId": 1, "enabled": True}, {"clientId": "a", "enabled": "yes"}, []]
)
async def test_a_wrong_subscription_is_refused(running: Running, body: Any) -> None:
    assert (await running.ask("PATCH", "/internal/logs/subscribe", json=body))[0] == 400


async def test_files_come_newest_first_without_hidden_ones(running: Running) -> None:
    folder = running.host.folders.output
    for age, name in enumerate(("new.png", "older one.png", ".hidden", "oldest.txt")):
        (folder / name).touch()
        os.utime(folder / name, (1_700_000_000 - age, 1_700_000_000 - age))
    (folder / "subfolder").mkdir()
    assert await running.get("/internal/files/output") == [
        "new.png [output]",
        "older one.png [output]",
        "oldest.txt [output]",
    ]
    assert await running.get("/internal/files/temp") == []


async def test_only_three_folders_are_listed(running: Running) -> None:
    assert (await running.ask("GET", "/internal/files/user"))[0] == 400
    assert (await running.ask("GET", "/internal/files/..%2Foutput"))[0] == 400


async def test_folders_are_told_by_name_only(running: Running) -> None:
    paths = await running.get("/internal/folder_paths")
    assert paths == {"wuerstchen": ["models"]}
