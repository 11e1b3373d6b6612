"""What the host itself costs: per node, and from `POST /prompt` to the first call of a network.

    python benchmarks/overhead.py

Per node: graphs of nodes that only add, run by the real executor; the time that they spent adding
is taken off. To the first call: a real `wuerstchen serve` with the demo model and everything warm.
Each prompt is the text-to-image example with one step a stage and another seed; from sending the
request to the first layer that Stage C calls, by hooks of a node pack, on the clock that both
processes share.
"""

import argparse
import asyncio
import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server_load import QUICK, Client, example_prompt, serving, until

from comfyui_wuerstchen.host.cache import CacheLimits
from comfyui_wuerstchen.host.declarations import NodeRegistry, Prompt
from comfyui_wuerstchen.host.executor import Executor
from comfyui_wuerstchen.host.folders import Folders

# Two nodes: one between the loader and the sampler, and one behind the sampler that shows when the
# network was first called since it last looked.
PACK = '''
import time


class Watch:
    """Passes Stage C on; from then on each call of one of its layers is noted."""

    RETURN_TYPES = ("WUERSTCHEN_STAGE_C",)
    FUNCTION = "watch"
    calls = []

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"stage_c": ("WUERSTCHEN_STAGE_C", {})}}

    def watch(self, stage_c):
        for module in stage_c.get().modules():
            module.register_forward_pre_hook(lambda *_: self.calls.append(time.monotonic()))
        return (stage_c,)


class FirstCall:
    RETURN_TYPES = ()
    FUNCTION = "show"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"latent": ("LATENT", {})}}

    def show(self, latent):
        first = Watch.calls[0]
        Watch.calls.clear()
        return {"ui": {"first_call": [first]}}


NODE_CLASS_MAPPINGS = {"Watch": Watch, "FirstCall": FirstCall}
'''
SIZES = (10, 100, 1000)
MANY_NODES = 200


@dataclass
class Stopwatch:
    seconds: float = 0.0


def adding_nodes(inside: Stopwatch) -> NodeRegistry:
    """Nodes that only add, and count the time they take for it."""

    class Add:
        RETURN_TYPES = ("INT",)
        FUNCTION = "add"

        @classmethod
        def INPUT_TYPES(cls) -> dict[str, Any]:
            return {"required": {"a": ("INT", {"default": 0}), "b": ("INT", {"default": 1})}}

        def add(self, a: int, b: int) -> tuple[int]:
            started = time.perf_counter()
            total = a + b
            inside.seconds += time.perf_counter() - started
            return (total,)

    class Show(Add):
        OUTPUT_NODE = True

    return {"Add": Add, "Show": Show}


def chain(size: int, value: int) -> Prompt:
    """Each node adds to what the one before it gave."""
    nodes = {
        str(i): {"class_type": "Add", "inputs": {"a": [str(i - 1), 0], "b": 1}} for i in range(size)
    }
    nodes["0"]["inputs"]["a"] = value
    nodes[str(size - 1)]["class_type"] = "Show"
    return nodes


def wide(size: int, value: int) -> Prompt:
    """One node feeds all others, and each of those is an output."""
    nodes = {
        str(i): {"class_type": "Show", "inputs": {"a": ["0", 0], "b": i}} for i in range(1, size)
    }
    return {"0": {"class_type": "Add", "inputs": {"a": value, "b": 1}}, **nodes}


def line(name: str, taken: list[float], unit: str) -> None:
    """Prints median and 99th percentile."""
    parts = statistics.quantiles(taken, n=100, method="inclusive")
    print(f"{name:<44} {parts[49]:9.2f} {parts[98]:9.2f} {unit}")


def measure_executor(runs: int) -> None:
    inside = Stopwatch()
    here = Path()
    keeps_all = CacheLimits(entries=2 * max(SIZES))
    executor = Executor(adding_nodes(inside), Folders(here, here, here), keeps_all)
    for size in SIZES:
        for name, make in (("chain", chain), ("wide", wide)):
            for cached in (False, True):
                executor.free()
                taken = []
                for run in range(runs + 1):
                    prompt = make(size, 0 if cached else run)
                    outputs = [n for n, node in prompt.items() if node["class_type"] == "Show"]
                    inside.seconds = 0.0
                    started = time.perf_counter()
                    result = executor.run(prompt, outputs)
                    seconds = time.perf_counter() - started - inside.seconds
                    assert result.status == "success"
                    taken.append(1e3 * seconds / size)
                state = "all cached" if cached else "nothing cached"
                line(f"{name} of {size}, {state}", taken[1:], "ms a node")


def watched_prompt(more_nodes: int) -> Prompt:
    """The example with one step a stage, the pack's nodes in place, and a chain beside it."""
    prompt = example_prompt(steps=1)
    sampler = next(n for n in prompt.values() if n["class_type"] == "WuerstchenStageCSampler")
    sampler_id = next(node_id for node_id, node in prompt.items() if node is sampler)
    prompt["watch"] = {"class_type": "Watch", "inputs": {"stage_c": sampler["inputs"]["stage_c"]}}
    sampler["inputs"]["stage_c"] = ["watch", 0]
    prompt["first"] = {"class_type": "FirstCall", "inputs": {"latent": [sampler_id, 0]}}
    for i in range(more_nodes):
        value = [f"more{i - 1}", 0] if i else {"__value__": "word"}
        prompt[f"more{i}"] = {"class_type": "PrimitiveString", "inputs": {"value": value}}
    if more_nodes:
        last = {"source": [f"more{more_nodes - 1}", 0]}
        prompt["shown"] = {"class_type": "PreviewAny", "inputs": last}
    return prompt


async def measure_first_call(
    name: str, client: Client, more_nodes: int, seeds: Iterator[int], runs: int
) -> None:
    prompt = watched_prompt(more_nodes)
    sampler_id = prompt["first"]["inputs"]["latent"][0]
    taken: list[float] = []
    async with await client.listen("bench") as socket:
        for _ in range(runs + 2):
            prompt[sampler_id]["inputs"]["seed"] = next(seeds)
            sent = time.monotonic()
            await client.post("/prompt", {"prompt": prompt, "client_id": "bench"})
            shown = await until(socket, "executed", "first")
            taken.append(1e3 * (shown["output"]["first_call"][0] - sent))
            await client.until(lambda remaining: remaining == 0)
    line(name, taken[2:], "ms")  # the first ones read the weights


async def fill_history(client: Client, count: int) -> None:
    for _ in range(count):
        await client.post("/prompt", {"prompt": QUICK})
    await client.until(lambda remaining: remaining == 0)


async def measure_server(runs: int, history: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        packs = Path(folder) / "custom_nodes"
        packs.mkdir()
        (packs / "watch.py").write_text(PACK, encoding="utf-8")
        async with serving(Path(folder), "--custom-nodes") as client:
            seeds = itertools.count()
            await measure_first_call("POST /prompt to first call", client, 0, seeds, runs)
            big = f"  with {MANY_NODES} more nodes"
            await measure_first_call(big, client, MANY_NODES, seeds, runs)
            await fill_history(client, history)
            long = f"  with {history} prompts in the history"
            await measure_first_call(long, client, 0, seeds, runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=50, help="of each graph")
    parser.add_argument("--history", type=int, default=1000, help="prompts")
    arguments = parser.parse_args()
    print(f"{'':<44} {'median':>9} {'p99':>9}")
    measure_executor(arguments.runs)
    asyncio.run(measure_server(arguments.runs, arguments.history))


if __name__ == "__main__":
    main()
