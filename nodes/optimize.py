"""The switches of speed and memory, between the loaders and the nodes that run a stage."""

from typing import Any, ClassVar

from ..wuerstchen_core.optimize import COMPILE, RESIDENCY, STORAGE, Optimization
from .loaders import CATEGORY, fitting, unwired
from .parts import Part

# Input and output name, socket, and what the output is; in the order of the node's outputs.
_STAGES = (
    ("stage_c", "WUERSTCHEN_STAGE_C", "Stage C as it is to run; for the Stage C Sampler."),
    ("stage_b", "WUERSTCHEN_STAGE_B", "Stage B as it is to run; for the Stage B Sampler."),
    ("stage_a", "WUERSTCHEN_STAGE_A", "Stage A as it is to run; for Stage A Decode and Encode."),
)


class Optimize:
    """Stages -> the same stages, to run faster or in less memory."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Makes stages run faster or in less memory. Place it between a loader and the nodes that "
        "run its stages, and wire only those it is meant for. The presets change nothing."
    )
    SEARCH_ALIASES: ClassVar[list[str]] = [
        "wuerstchen compile",
        "torch.compile",
        "quantize",
        "int8",
        "fp8",
        "offload",
        "low vram",
        "step cache",
    ]
    RETURN_TYPES = tuple(socket for _, socket, _ in _STAGES)
    RETURN_NAMES = tuple(stage for stage, _, _ in _STAGES)
    OUTPUT_TOOLTIPS = tuple(tooltip for _, _, tooltip in _STAGES)
    FUNCTION = "optimize"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "compile": (
                    "COMBO",
                    {
                        "options": list(COMPILE),
                        "default": "off",
                        "tooltip": "blocks: torch.compile makes the repeated blocks faster; the "
                        "first picture takes longer. cuda_graphs: also replays a whole step "
                        "without Python, which helps a fast GPU most; recorded once for each "
                        "size. Stages C and B.",
                    },
                ),
                "storage": (
                    "COMBO",
                    {
                        "options": list(STORAGE),
                        "default": "as_loaded",
                        "tooltip": "int8 or float8: the large layers' weights take half the memory "
                        "of bfloat16, a quarter of float32. The picture changes a little; it is "
                        "seldom faster.",
                    },
                ),
                "residency": (
                    "COMBO",
                    {
                        "options": list(RESIDENCY),
                        "default": "resident",
                        "tooltip": "Where weights lie. resident: on the GPU, fastest. one_stage: "
                        "there while their stage runs. streamed: brought layer by layer, least "
                        "GPU memory, slowest. Inside ComfyUI its memory management decides.",
                    },
                ),
                "step_cache": (
                    "FLOAT",
                    {
                        "default": 0.0,
                        "min": 0.0,
                        "max": 1.0,
                        "step": 0.01,
                        "tooltip": "Skips calls of the model until the latent has moved by this "
                        "share of its length. Faster, less exact; 0 makes every call. For the "
                        "Würstchen samplers of Stages C and B.",
                    },
                ),
                "guidance_end": (
                    "FLOAT",
                    {
                        "default": 1.0,
                        "min": 0.0,
                        "max": 1.0,
                        "step": 0.01,
                        "tooltip": "The share of the steps, from the first, that cfg guides; each "
                        "of the others costs half. 1 guides all. For the Würstchen samplers of "
                        "Stages C and B.",
                    },
                ),
            },
            "optional": {
                stage: (socket, {"tooltip": "From a Würstchen loader; may stay unwired."})
                for stage, socket, _ in _STAGES
            },
        }

    def optimize(
        self,
        compile: str,
        storage: str,
        residency: str,
        step_cache: float,
        guidance_end: float,
        **wired: Part[Any],
    ) -> tuple[Part[Any], ...]:
        wanted = Optimization(compile, storage, residency, step_cache, guidance_end)
        return tuple(
            wired[stage].optimized(fitting(stage, wanted))
            if stage in wired
            else unwired(stage, "Würstchen Optimize")
            for stage, _, _ in _STAGES
        )


NODES = {"WuerstchenOptimize": (Optimize, "Würstchen Optimize")}
