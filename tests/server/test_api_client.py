"""Programs written for ComfyUI: they post to `/prompt`, listen on `/ws`, read `/history`, `/view`.

The client below knows only ComfyUI's documented protocol, and the server is a real process.
"""

import io
import json
import sys
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import ClientSession, FormData, WSMsgType
from PIL import Image

from ..paths import WORKFLOWS
from .conftest import Prompt, graph
from .processes import Nursery, ServerProcess, server_process, wait_until
from .workflows import api_prompt

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the servers are forked")


@pytest.fixture
def server(nursery: Nursery, tmp_path: Path) -> Iterator[ServerProcess]:
    with server_process(nursery, tmp_path / "data") as started:
        yield started


class ApiClient:
    """A ComfyUI client. Previews are binary frames, everything else is JSON."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.client_id = str(uuid.uuid4())
        self.previews: list[bytes] = []
        self.steps: list[tuple[str, int]] = []

    def queue(self, prompt: Prompt) -> dict[str, Any]:
        body = json.dumps({"prompt": prompt, "client_id": self.client_id}).encode()
        request = urllib.request.Request(f"{self.address}/prompt", data=body)  # without a type
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def history(self, prompt_id: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.address}/history/{prompt_id}") as answer:
            return json.load(answer)[prompt_id]

    def view(self, image: dict[str, str]) -> bytes:
        query = urllib.parse.urlencode(image)
        with urllib.request.urlopen(f"{self.address}/view?{query}") as answer:
            assert answer.headers["Content-Type"] == "image/png"
            return answer.read()

    async def run(self, prompt: Prompt) -> dict[str, list[bytes]]:
        """The pictures that each output node gave."""
        async with (
            ClientSession() as session,
            session.ws_connect(f"{self.address}/ws?clientId={self.client_id}") as socket,
        ):
            prompt_id = self.queue(prompt)["prompt_id"]
            async for message in socket:
                if message.type is WSMsgType.BINARY:
                    self.previews.append(message.data[8:])
                    continue
                told = json.loads(message.data)
                data = told["data"]
                if told["type"] == "progress":
                    self.steps.append((data["node"], data["value"]))
                elif told["type"] == "executing" and data["node"] is None:
                    assert data["prompt_id"] == prompt_id
                    break
        outputs = self.history(prompt_id)["outputs"]
        return {
            node_id: [self.view(image) for image in output["images"]]
            for node_id, output in outputs.items()
            if "images" in output
        }


async def test_text_to_image(server: ServerProcess) -> None:
    client = ApiClient(server.address())
    prompt = api_prompt(WORKFLOWS / "text_to_image.json", seed=5)
    [[picture]] = (await client.run(prompt)).values()
    with Image.open(io.BytesIO(picture)) as opened:
        assert opened.format == "PNG"
        assert json.loads(opened.text["prompt"]) == prompt
        pixels = np.asarray(opened)
    assert pixels.std() > 10  # not one colour
    in_steps = ("Sampler", "Decode")
    reporting = {key for key, node in prompt.items() if node["class_type"].endswith(in_steps)}
    assert {node_id for node_id, _ in client.steps} == reporting
    for preview in client.previews:  # a client that knows no feature flags gets them bare
        with Image.open(io.BytesIO(preview)) as opened:
            assert opened.format == "JPEG"
    again = (await client.run(prompt)).values()
    assert list(again) == [[picture]]


async def test_an_uploaded_picture_comes_back(server: ServerProcess) -> None:
    drawn = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(drawn).save(file, format="PNG")
    form = FormData()
    form.add_field("image", file.getvalue(), filename="drawn.png", content_type="image/png")
    form.add_field("overwrite", "true")
    async with (
        ClientSession() as session,
        session.post(f"{server.address()}/upload/image", data=form) as answer,
    ):
        assert answer.status == 200
        uploaded = await answer.json()
    assert uploaded == {"name": "drawn.png", "subfolder": "", "type": "input"}
    client = ApiClient(server.address())
    prompt = graph(
        n1=("LoadImage", {"image": uploaded["name"]}),
        n2=("SaveImage", {"images": ["1", 0], "filename_prefix": "sub/copy"}),
        n3=("PreviewImage", {"images": ["1", 0]}),
    )
    pictures = await client.run(prompt)
    assert sorted(pictures) == ["2", "3"]
    for [picture] in pictures.values():
        with Image.open(io.BytesIO(picture)) as opened:
            assert (np.asarray(opened) == drawn).all()


async def test_a_client_without_a_socket_polls(server: ServerProcess) -> None:
    body = json.dumps({"prompt": api_prompt(WORKFLOWS / "text_to_image.json")}).encode()
    with urllib.request.urlopen(f"{server.address()}/prompt", data=body) as answer:
        prompt_id = json.load(answer)["prompt_id"]
    history = wait_until(lambda: server.get(f"/history/{prompt_id}"), "it does not end")
    assert history[prompt_id]["status"]["completed"] is True


def test_a_refused_prompt_is_an_http_error(server: ServerProcess) -> None:
    client = ApiClient(server.address())
    with pytest.raises(urllib.error.HTTPError) as refused:
        client.queue(graph(n1=("LoadImage", {"image": "nothing.png"}), n2=("SaveImage", {})))
    with refused.value as answer:
        assert answer.code == 400
        assert json.load(answer)["error"]["type"] == "prompt_outputs_failed_validation"
