"""Which prompts are accepted, in which order they wait, and what is kept of them."""

import json
from typing import Any
from uuid import UUID, uuid4

import pytest

from .conftest import Running, graph
from .prompts import PICTURE, finish


async def test_the_front_comes_first_and_numbers_decide(running: Running) -> None:
    listener = await running.listen()
    slow = graph(n2=("Slow", {"steps": 10_000}), n5=("PreviewImage", {"images": ["2", 0]}))
    await running.submit(slow, client_id="tester")
    await listener.until("progress", node="2")
    last = (await running.submit(PICTURE))[1]
    first = (await running.submit(PICTURE, front=True))[1]
    middle = (await running.submit(PICTURE, number=0.5))[1]
    assert (last["number"], first["number"], middle["number"]) == (1, -2, 0.5)
    late = (await running.submit(PICTURE, number=1000))[1]
    assert (await running.submit(PICTURE))[1]["number"] == 5  # counted on, before that one
    await running.ask("POST", "/queue", json={"delete": [late["prompt_id"]]})
    queue = await running.get("/api/queue")
    assert [len(entry) for entry in queue["queue_running"] + queue["queue_pending"]] == [5] * 5
    waiting = [entry[1] for entry in queue["queue_pending"]]
    assert waiting[:3] == [one["prompt_id"] for one in (first, middle, last)]
    assert (await running.get("/prompt")) == {"exec_info": {"queue_remaining": 5}}

    assert (await running.ask("POST", "/queue", json={"delete": [first["prompt_id"]]}))[0] == 200
    _, cancelled = await running.ask("POST", f"/api/jobs/{middle['prompt_id']}/cancel")
    assert cancelled == {"cancelled": True}
    _, again = await running.ask("POST", f"/api/jobs/{middle['prompt_id']}/cancel")
    assert again == {"cancelled": False}
    assert (await running.ask("GET", f"/api/jobs/{middle['prompt_id']}"))[0] == 404
    pending = await running.get("/jobs?status=pending")
    assert [one["id"] for one in pending["jobs"]] == [waiting[3], last["prompt_id"]]
    assert (await running.ask("POST", "/queue", json={"clear": True}))[0] == 200
    assert (await running.get("/prompt")) == {"exec_info": {"queue_remaining": 1}}
    running_id = queue["queue_running"][0][1]
    _, stopped = await running.ask("POST", "/jobs/cancel", json={"job_ids": [running_id]})
    assert stopped == {"cancelled": True}
    await listener.until_done(running_id)


async def test_history_pages_and_forgets(running: Running) -> None:
    ids = [(await finish(running, PICTURE))[1] for _ in range(4)]
    assert list(await running.get("/history")) == ids
    assert list(await running.get("/history?max_items=2")) == ids[2:]
    assert list(await running.get("/history?max_items=2&offset=1")) == ids[1:3]
    jobs = await running.get("/jobs?limit=3&offset=2&sort_order=asc")
    assert [one["id"] for one in jobs["jobs"]] == ids[2:]
    assert jobs["pagination"] == {"offset": 2, "limit": 3, "total": 4, "has_more": False}
    assert "outputs" not in jobs["jobs"][0] and jobs["jobs"][0]["status"] == "completed"
    await running.ask("POST", "/history", json={"delete": ids[:1]})
    assert list(await running.get("/history")) == ids[1:]
    await running.ask("POST", "/history", json={"clear": True})
    assert await running.get("/history") == {}
    assert await running.get(f"/history/{ids[1]}") == {}


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({}, "no_prompt"),
        ([], "no_prompt"),
        ({"prompt": {}}, "no_prompt"),
        ({"prompt": {"1": {"class_type": "Nope", "inputs": {}}}}, "missing_node_type"),
        ({"prompt": graph(n1=("Add", {"a": 1, "b": 1}))}, "prompt_no_outputs"),
        (
            {"prompt": graph(n1=("PreviewImage", {}))},
            "prompt_outputs_failed_validation",
        ),
        ({"prompt": PICTURE, "prompt_id": "ABC"}, "invalid_prompt_id"),
        ({"prompt": PICTURE, "prompt_id": str(uuid4()).upper()}, "invalid_prompt_id"),
        ({"prompt": PICTURE, "number": "one"}, "invalid_request"),
        ({"prompt": PICTURE, "extra_data": "x"}, "invalid_request"),
        ({"prompt": PICTURE, "client_id": 7}, "invalid_request"),
        ({"prompt": PICTURE, "partial_execution_targets": "5"}, "invalid_request"),
        ({"prompt": PICTURE, "partial_execution_targets": []}, "prompt_no_outputs"),
    ],
)
async def test_refused_prompts(running: Running, body: Any, kind: str) -> None:
    status, answer = await running.ask("POST", "/api/prompt", json=body)
    assert status == 400 and answer["error"]["type"] == kind
    assert answer["error"].keys() == {"type", "message", "details", "extra_info"}
    assert isinstance(answer["node_errors"], dict)
    assert await running.get("/history") == {}


async def test_the_good_part_of_a_prompt_runs(running: Running) -> None:
    prompt = graph(
        n1=("Picture", {"content": "BLACK", "height": 8}),
        n2=("Picture", {"content": "PURPLE", "height": 8}),
        n5=("PreviewImage", {"images": ["1", 0]}),
        n6=("PreviewImage", {"images": ["2", 0]}),
    )
    listener = await running.listen()
    status, answer = await running.submit(prompt, client_id="tester")
    assert status == 200
    assert answer["node_errors"] == {
        "2": {
            "errors": [
                {
                    "type": "value_not_in_list",
                    "message": "Value not in list",
                    "details": "content: 'PURPLE' not in ['WHITE', 'BLACK', 'NOISE']",
                    "extra_info": {
                        "input_name": "content",
                        "input_config": [["WHITE", "BLACK", "NOISE"], {}],
                        "received_value": "PURPLE",
                    },
                }
            ],
            "dependent_outputs": ["6"],
            "class_type": "Picture",
        }
    }
    await listener.until_done(answer["prompt_id"])
    history = await running.get(f"/history/{answer['prompt_id']}")
    assert history[answer["prompt_id"]]["outputs"].keys() == {"5"}


async def test_partial_execution_runs_only_the_targets(running: Running) -> None:
    prompt = graph(
        n1=("Picture", {"content": "BLACK", "height": 8}),
        n5=("PreviewImage", {"images": ["1", 0]}),
        n6=("PreviewImage", {"images": ["1", 0]}),
    )
    _, _, history, _ = await finish(running, prompt, partial_execution_targets=["6"])
    assert history["outputs"].keys() == {"6"} and history["prompt"][4] == ["6"]


async def test_ids_of_the_client_are_kept_and_used_once(running: Running) -> None:
    mine = str(uuid4())
    _, answer = await running.submit(PICTURE, prompt_id=mine)
    assert answer["prompt_id"] == mine
    status, again = await running.submit(PICTURE, prompt_id=mine)
    assert status == 400 and again["error"]["type"] == "invalid_prompt_id"
    _, free = await running.submit(PICTURE, prompt_id=None)
    assert str(UUID(free["prompt_id"])) == free["prompt_id"]


async def test_tokens_of_paid_services_are_not_kept(running: Running) -> None:
    secrets = {"auth_token_comfy_org": "secret", "api_key_comfy_org": "secret", "mine": 1}
    _, _, history, job = await finish(running, PICTURE, extra_data=secrets)
    assert "secret" not in json.dumps([history, job])
    assert history["prompt"][3]["mine"] == 1
