"""Tiny node classes for the tests of the host. Loaded by path, also in child processes."""

import asyncio
import time

import torch

from comfyui_wuerstchen.host.node_call import ExecutionBlocker
from comfyui_wuerstchen.host.registry import Nodes
from comfyui_wuerstchen.host.stock import STOCK_DISPLAY_NAMES, STOCK_NODES
from comfyui_wuerstchen.nodes.runtime import surroundings
from comfyui_wuerstchen.wuerstchen_core.errors import CheckpointError, SettingError

CALLS: list[str] = []


class Picture:
    """IMAGE of one level; counts its calls."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "make"

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "content": (["WHITE", "BLACK", "NOISE"], {}),
                "height": ("INT", {"default": 512, "min": 1, "max": 1024, "step": 1}),
            },
            "optional": {"seed": ("INT", {"default": 0, "min": 0, "max": 2**64 - 1})},
        }

    def make(self, content, height, seed=0):
        CALLS.append("Picture")
        generator = torch.Generator().manual_seed(seed)
        noise = torch.rand(1, height, 8, 3, generator=generator)
        return ({"WHITE": torch.ones_like(noise), "BLACK": noise * 0, "NOISE": noise}[content],)


class Mask:
    RETURN_TYPES = ("MASK",)
    FUNCTION = "make"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"value": ("FLOAT", {"default": 0.5, "min": 0.0, "max": 1.0})}}

    def make(self, value):
        CALLS.append("Mask")
        return (torch.full((1, 4, 4), value),)


class LazyMix:
    """Asks for `image1` only when the mask is not 1, for `image2` only when it is not 0."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "mix"

    @classmethod
    def INPUT_TYPES(cls):
        lazy = {"lazy": True}
        return {
            "required": {"image1": ("IMAGE", lazy), "image2": ("IMAGE", lazy), "mask": ("MASK",)}
        }

    def check_lazy_status(self, mask, image1, image2):
        wanted = []
        if image1 is None and mask.min() < 1:
            wanted.append("image1")
        if image2 is None and mask.max() > 0:
            wanted.append("image2")
        return wanted

    def mix(self, image1, image2, mask):
        CALLS.append("LazyMix")
        return (image1 if image2 is None else image2,)


class Show:
    """An output: gives what it got as `ui`."""

    RETURN_TYPES = ()
    FUNCTION = "show"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"value": ("*",)}}

    def show(self, value):
        CALLS.append("Show")
        return {"ui": {"shown": [value if isinstance(value, (int, float, str)) else "tensor"]}}


class Text:
    RETURN_TYPES = ("STRING",)
    FUNCTION = "give"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"text": ("STRING", {"multiline": True})}}

    def give(self, text):
        CALLS.append("Text")
        return (text,)


class MakeList:
    RETURN_TYPES = ("INT",)
    FUNCTION = "make"
    OUTPUT_IS_LIST = (True,)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"count": ("INT", {"default": 3, "min": 0, "max": 10})}}

    def make(self, count):
        return (list(range(count)),)


class Add:
    RETURN_TYPES = ("INT",)
    FUNCTION = "add"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"a": ("INT", {"default": 0}), "b": ("INT", {"default": 0})}}

    def add(self, a, b):
        return (a + b,)


class SumList:
    RETURN_TYPES = ("INT",)
    FUNCTION = "add"
    INPUT_IS_LIST = True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"values": ("INT", {"forceInput": True})}}

    def add(self, values):
        return (sum(values),)


class Changed:
    """Runs again whenever its class attribute `state` changes."""

    state: float = 0.0
    RETURN_TYPES = ("INT",)
    FUNCTION = "give"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"value": ("INT", {"default": 0})}}

    @classmethod
    def IS_CHANGED(cls, value):
        return cls.state

    def give(self, value):
        CALLS.append("Changed")
        return (value,)


class Personal:
    NOT_IDEMPOTENT = True
    RETURN_TYPES = ("INT",)
    FUNCTION = "give"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}, "hidden": {"me": "UNIQUE_ID", "prompt": "PROMPT"}}

    def give(self, me, prompt):
        CALLS.append(f"Personal {me} of {len(prompt)}")
        return (int(me),)


class Blocker:
    RETURN_TYPES = ("INT",)
    FUNCTION = "block"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"message": ("STRING", {"default": ""})}}

    def block(self, message):
        return (ExecutionBlocker(message or None),)


class Expand:
    """Adds `count` by a chain of Add nodes that it expands into."""

    RETURN_TYPES = ("INT",)
    FUNCTION = "expand"

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {"value": ("INT", {"default": 0}), "count": ("INT", {"default": 2})},
            "hidden": {"me": "UNIQUE_ID"},
        }

    def expand(self, value, count, me):
        graph, last = {}, value
        for i in range(count):
            graph[f"{me}.{value}.{i}"] = {"class_type": "Add", "inputs": {"a": last, "b": 1}}
            last = [f"{me}.{value}.{i}", 0]
        return {"expand": graph, "result": (last,)}


class AsyncSleep:
    RETURN_TYPES = ("INT",)
    FUNCTION = "sleep"

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {"seconds": ("FLOAT", {"default": 0.1}), "value": ("INT", {"default": 1})}
        }

    async def sleep(self, seconds, value):
        await asyncio.sleep(seconds)
        return (value,)


class Slow:
    """Steps that take 20 ms each and report progress."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"steps": ("INT", {"default": 1000, "min": 1, "max": 10000})}}

    def run(self, steps):
        for step in range(steps):
            time.sleep(0.02)
            surroundings().progress(step + 1, steps, None)
        return (torch.zeros(1, 8, 8, 3),)


class Deaf(Slow):
    """Never looks up from its work."""

    def run(self, steps):
        surroundings().progress(0, 1, None)
        time.sleep(60)


class Hint(Text):
    """Shows something, but is not an output."""

    HAS_INTERMEDIATE_OUTPUT = True

    def give(self, text):
        return {"ui": {"hint": [text]}, "result": (text,)}


class Fail:
    """Holds a tensor while it fails."""

    held: list = []
    RETURN_TYPES = ("INT",)
    FUNCTION = "fail"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"kind": (["bug", "setting", "checkpoint"],)}}

    def fail(self, kind):
        kinds = {"bug": RuntimeError, "setting": SettingError, "checkpoint": CheckpointError}
        raise kinds[kind](f"a {kind} went wrong")


class CheckOne:
    """VALIDATE_INPUTS for one of two inputs."""

    RETURN_TYPES = ("INT",)
    FUNCTION = "give"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"input1": ("INT,FLOAT",), "input2": ("INT,FLOAT",)}}

    @classmethod
    def VALIDATE_INPUTS(cls, input1):
        return True if isinstance(input1, int) else f"Invalid type of input1: {type(input1)}"

    def give(self, input1, input2):
        return (1,)


class Sampler:
    """Many widgets, one forced socket, a seed with its control value."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "sample"

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "model": ("MODEL",),
                "seed": ("INT", {"default": 0, "min": 0, "max": 2**64 - 1}),
                "steps": ("INT", {"default": 20, "min": 1, "max": 100}),
                "cfg": ("FLOAT", {"default": 4.0, "min": 0.0, "max": 30.0}),
                "sampler_name": ("COMBO", {"options": ["ddpm", "ddim"]}),
                "strength": ("FLOAT", {"forceInput": True}),
            },
            "optional": {"tiled": ("BOOLEAN", {"default": False})},
        }

    def sample(self, **inputs):
        return (inputs,)


TOY_CLASSES = (
    Picture,
    Mask,
    LazyMix,
    Show,
    Text,
    MakeList,
    Add,
    SumList,
    Changed,
    Personal,
    Blocker,
    Expand,
    AsyncSleep,
    Slow,
    Deaf,
    Hint,
    Fail,
    CheckOne,
    Sampler,
)

TOY_NODES = Nodes(
    {**STOCK_NODES, **{one.__name__: one for one in TOY_CLASSES}}, dict(STOCK_DISPLAY_NAMES)
)
