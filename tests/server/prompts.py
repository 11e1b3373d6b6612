"""A small prompt, and running one to its end."""

from typing import Any

from .conftest import Running, graph

PICTURE = graph(
    n3=("Mask", {"value": 1.0}),
    n1=("Picture", {"content": "BLACK", "height": 8}),
    n2=("Picture", {"content": "WHITE", "height": 8}),
    n4=("LazyMix", {"image1": ["1", 0], "image2": ["2", 0], "mask": ["3", 0]}),
    n5=("PreviewImage", {"images": ["4", 0]}),
)


async def finish(running: Running, prompt: Any, client: str = "tester", **more: Any) -> Any:
    """Runs a prompt to its end; returns (heard messages, prompt id, history entry, job)."""
    listener = await running.listen(client)
    await listener.until("feature_flags")
    listener.heard.clear()
    status, answer = await running.submit(prompt, client_id=client, **more)
    assert status == 200, answer
    prompt_id = answer["prompt_id"]
    await listener.until_done(prompt_id)
    history = await running.get(f"/history/{prompt_id}")
    job = await running.get(f"/api/jobs/{prompt_id}")
    await listener.socket.close()
    return listener.heard, prompt_id, history[prompt_id], job
