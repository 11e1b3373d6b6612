"""What a client hears and reads, in the order and the shapes of ComfyUI's transcripts."""

import asyncio
import json
import struct
from typing import Any
from uuid import uuid4

from ..paths import WORKFLOWS
from .conftest import Running, graph
from .prompts import PICTURE, finish
from .workflows import api_prompt


def heard_without(heard: list[dict[str, Any]], *kinds: str) -> list[tuple[str, Any]]:
    """(type, what matters) of each message; progress of steps and the like is left out."""
    told = []
    for message in heard:
        kind, data = message["type"], message["data"]
        if kind in kinds:
            continue
        if kind == "status":
            told.append((kind, data["status"]["exec_info"]["queue_remaining"]))
        elif kind == "progress_state":
            told.append((kind, {key: one["state"] for key, one in data["nodes"].items()}))
        else:
            told.append((kind, data.get("node", data.get("nodes"))))
    return told


async def test_a_run_is_told_in_comfyuis_order(running: Running) -> None:
    heard, prompt_id, history, job = await finish(running, PICTURE)
    assert heard_without(heard) == [
        ("status", 1),
        ("status", 1),
        ("execution_start", None),
        ("execution_cached", []),
        ("progress_state", {"3": "running"}),
        ("executing", "3"),
        ("progress_state", {"3": "finished"}),
        ("progress_state", {"3": "finished", "4": "running"}),
        ("executing", "4"),
        ("progress_state", {"3": "finished", "4": "running", "2": "running"}),
        ("executing", "2"),
        ("progress_state", {"3": "finished", "4": "running", "2": "finished"}),
        ("progress_state", {"3": "finished", "4": "running", "2": "finished"}),
        ("executing", "4"),
        ("progress_state", {"3": "finished", "4": "finished", "2": "finished"}),
        ("progress_state", {"3": "finished", "4": "finished", "2": "finished", "5": "running"}),
        ("executing", "5"),
        ("executed", "5"),
        ("progress_state", {"3": "finished", "4": "finished", "2": "finished", "5": "finished"}),
        ("execution_success", None),
        ("status", 0),
        ("executing", None),
    ]
    state = next(one for one in heard if one["type"] == "progress_state")["data"]
    assert state == {
        "prompt_id": prompt_id,
        "nodes": {
            "3": {
                "value": 0.0,
                "max": 1.0,
                "state": "running",
                "node_id": "3",
                "prompt_id": prompt_id,
                "display_node_id": "3",
                "parent_node_id": None,
                "real_node_id": "3",
            }
        },
    }
    executed = next(one for one in heard if one["type"] == "executed")["data"]
    (shown,) = executed["output"]["images"]
    assert executed.keys() == {"node", "display_node", "output", "prompt_id"}
    assert shown["type"] == "temp" and shown["subfolder"] == ""

    create_time = history["prompt"][3]["create_time"]
    assert history["prompt"][:2] == [0, prompt_id]
    assert history["prompt"][2] == PICTURE
    assert history["prompt"][3] == {"client_id": "tester", "create_time": create_time}
    assert history["prompt"][4] == ["5"]
    assert history["outputs"] == {"5": {"images": [shown]}}
    assert history["status"]["status_str"] == "success" and history["status"]["completed"] is True
    kinds = [kind for kind, _ in history["status"]["messages"]]
    assert kinds == ["execution_start", "execution_cached", "execution_success"]
    assert history["meta"] == {
        "5": {"node_id": "5", "display_node": "5", "parent_node": None, "real_node_id": "5"}
    }

    assert job["preview_output"] == {**shown, "nodeId": "5", "mediaType": "images"}
    assert job["workflow"] == {"prompt": PICTURE, "extra_data": history["prompt"][3]}
    assert job["execution_status"] == history["status"] and job["outputs"] == history["outputs"]
    counts = job["outputs_count"], job["previewable_outputs_count"], job["priority"]
    assert (job["status"], counts) == ("completed", (1, 1, 0))
    assert create_time <= job["execution_start_time"] <= job["execution_end_time"]


async def test_a_second_run_is_all_cached(running: Running) -> None:
    await finish(running, PICTURE)
    heard, _, history, _ = await finish(running, PICTURE)
    assert heard_without(heard) == [
        ("status", 1),
        ("status", 1),
        ("execution_start", None),
        ("execution_cached", ["3", "2", "4", "5"]),  # the lazy "1" was never asked for
        ("executed", "5"),
        ("progress_state", {"5": "finished"}),
        ("execution_success", None),
        ("status", 0),
        ("executing", None),
    ]
    assert history["prompt"][0] == 1 and "5" in history["outputs"]


async def test_an_error_names_the_node_and_tells_no_paths(running: Running) -> None:
    prompt = graph(
        n1=("Add", {"a": 1, "b": 2}),
        n2=("Fail", {"kind": "bug"}),
        n5=("Show", {"value": ["2", 0]}),
    )
    heard, prompt_id, history, job = await finish(running, prompt)
    assert [kind for kind, _ in heard_without(heard)] == [
        "status",
        "status",
        "execution_start",
        "execution_cached",
        "progress_state",
        "executing",
        "execution_error",
        "status",
        "executing",
    ]
    error = next(one for one in heard if one["type"] == "execution_error")["data"]
    assert error.pop("timestamp") > 0
    assert error == {
        "prompt_id": prompt_id,
        "node_id": "2",
        "node_type": "Fail",
        "executed": [],
        "exception_message": "a bug went wrong\n",
        "exception_type": "RuntimeError",
        "traceback": [],
        "current_inputs": {"kind": ["bug"]},
        "current_outputs": [],
    }
    assert history["status"]["status_str"] == "error" and history["outputs"] == {}
    assert job["status"] == "failed"
    assert job["execution_error"]["exception_message"] == "a bug went wrong\n"


async def test_an_interrupt_stops_the_running_prompt(running: Running) -> None:
    listener = await running.listen()
    prompt = graph(n2=("Slow", {"steps": 10_000}), n5=("PreviewImage", {"images": ["2", 0]}))
    _, answer = await running.submit(prompt, client_id="tester")
    await listener.until("progress", node="2")
    assert (await running.ask("POST", "/interrupt", json={"prompt_id": str(uuid4())}))[0] == 200
    await listener.until("progress", node="2")  # it was another prompt's id
    assert (await running.ask("POST", "/api/interrupt"))[0] == 200
    told = await listener.until("execution_interrupted")
    assert (told["node_id"], told["node_type"], told["executed"]) == ("2", "Slow", [])
    await listener.until_done(answer["prompt_id"])
    job = await running.get(f"/jobs/{answer['prompt_id']}")
    assert job["status"] == "cancelled" and job["outputs_count"] == 0
    history = await running.get(f"/history/{answer['prompt_id']}")
    assert history[answer["prompt_id"]]["status"]["status_str"] == "error"


async def test_only_the_client_of_a_prompt_hears_of_it(running: Running) -> None:
    other = await running.listen("other")
    await finish(running, PICTURE)
    await other.until("status", status={"exec_info": {"queue_remaining": 1}})
    await other.until("status", status={"exec_info": {"queue_remaining": 0}})
    assert {one["type"] for one in other.heard} == {"status", "feature_flags"}


async def test_the_first_words_of_a_socket(running: Running) -> None:
    socket = await running.session.ws_connect(f"{running.url}/ws")
    first = await socket.receive_json()
    assert first["data"]["status"] == {"exec_info": {"queue_remaining": 0}}
    assert first["type"] == "status" and len(first["data"]["sid"]) == 32
    await socket.send_str("not json")
    await socket.send_str("[1]")
    await socket.send_json({"type": "feature_flags", "data": {}})
    flags = await socket.receive_json()
    assert flags["type"] == "feature_flags" and flags["data"]["supports_preview_metadata"] is True
    assert flags["data"] == await running.get("/features")


async def test_a_page_that_is_loaded_again_hears_where_its_prompt_is(running: Running) -> None:
    listener = await running.listen()
    prompt = graph(n2=("Slow", {"steps": 10_000}), n5=("PreviewImage", {"images": ["2", 0]}))
    await running.submit(prompt, client_id="tester")
    await listener.until("progress", node="2")
    await listener.socket.close()
    again = await running.listen()
    assert (await again.until("executing"))["node"] == "2"
    assert "2" in (await again.until("progress_state"))["nodes"]
    await running.ask("POST", "/interrupt")


async def test_previews_are_binary_frames_of_type_4(real: Running) -> None:
    prompt = api_prompt(WORKFLOWS / "text_to_image.json", width=128, height=128)
    listener = await real.listen()
    plain = await real.listen(flags=False)  # the same client, on a page that knows no type 4
    _, answer = await real.submit(prompt, client_id="tester")
    await listener.until_done(answer["prompt_id"])
    await plain.until_done(answer["prompt_id"])
    assert listener.pictures and plain.pictures
    for frame in listener.pictures:
        kind, length = struct.unpack(">II", frame[:8])
        about = json.loads(frame[8 : 8 + length])
        assert kind == 4 and frame[8 + length :].startswith(b"\xff\xd8")
        assert about.keys() == {
            "node_id",
            "display_node_id",
            "parent_node_id",
            "real_node_id",
            "prompt_id",
            "image_type",
        }
        assert about["image_type"] == "image/jpeg" and about["prompt_id"] == answer["prompt_id"]
    assert all(struct.unpack(">II", frame[:8]) == (1, 1) for frame in plain.pictures)
    shown = {
        json.loads(f[8 : 8 + struct.unpack(">I", f[4:8])[0]])["node_id"] for f in listener.pictures
    }
    kinds = {prompt[node_id]["class_type"] for node_id in shown}
    assert kinds == {"WuerstchenStageCSampler", "WuerstchenStageBSampler"}

    listener.pictures.clear()
    unseen = api_prompt(WORKFLOWS / "text_to_image.json", width=128, height=128, seed=5)
    _, answer = await real.submit(unseen, client_id="tester", extra_data={"preview_method": "none"})
    await listener.until_done(answer["prompt_id"])
    assert listener.pictures == []


async def test_a_new_seed_for_stage_b_leaves_stage_c_alone(real: Running) -> None:
    prompt = api_prompt(WORKFLOWS / "text_to_image.json", width=128, height=128, steps=2)
    await finish(real, prompt)
    (stage_b,) = (k for k, one in prompt.items() if one["class_type"] == "WuerstchenStageBSampler")
    prompt[stage_b]["inputs"]["seed"] = 99
    heard, *_ = await finish(real, prompt)
    cached = set(next(one for one in heard if one["type"] == "execution_cached")["data"]["nodes"])
    again = {prompt[node_id]["class_type"] for node_id in prompt.keys() - cached}
    assert again == {"WuerstchenStageBSampler", "WuerstchenStageADecode", "SaveImage"}


async def test_everyone_hears_the_progress_of_a_prompt_that_nobody_owns(running: Running) -> None:
    listener = await running.listen()
    prompt = graph(n2=("Slow", {"steps": 10_000}), n5=("PreviewImage", {"images": ["2", 0]}))
    await running.submit(prompt)
    await listener.until("progress", node="2")
    await running.ask("POST", "/interrupt")
    await listener.until("execution_interrupted")
    await listener.until("status", status={"exec_info": {"queue_remaining": 0}})
    kinds = {one["type"] for one in listener.heard}
    assert kinds == {
        "status",
        "feature_flags",
        "progress",
        "progress_state",
        "execution_interrupted",
    }


async def test_free_lets_go_of_the_cache(running: Running) -> None:
    await finish(running, PICTURE)
    assert (await running.ask("POST", "/free", json={"free_memory": True}))[0] == 200
    heard, *_ = await finish(running, PICTURE)
    assert heard_without(heard)[3] == ("execution_cached", [])


async def test_the_server_answers_while_a_node_works(running: Running) -> None:
    listener = await running.listen()
    prompt = graph(n2=("Slow", {"steps": 10_000}), n5=("PreviewImage", {"images": ["2", 0]}))
    await running.submit(prompt, client_id="tester")
    await listener.until("progress", node="2")
    answers = await asyncio.gather(*(running.get("/queue") for _ in range(20)))
    assert all(len(answer["queue_running"]) == 1 for answer in answers)
    await running.ask("POST", "/interrupt")
