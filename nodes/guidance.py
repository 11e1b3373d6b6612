"""How samplers use a stage: guidance beyond `cfg`, and pictures without edges."""

from typing import Any, ClassVar

from ..wuerstchen_core.errors import SettingError
from ..wuerstchen_core.guidance import Guidance
from ..wuerstchen_core.stage_a import StageA
from ..wuerstchen_core.stage_b import StageB
from ..wuerstchen_core.stage_c import StageC
from .parts import Part
from .samplers import CATEGORY

KINDS = ("plain", "apg")
EDGES = {"both": (True, True), "left and right": (False, True), "top and bottom": (True, False)}

_STAGE = {"tooltip": "From a Würstchen loader."}


def _number(default: float, lowest: float, highest: float, tooltip: str) -> tuple[str, Any]:
    limits = {"default": default, "min": lowest, "max": highest, "step": 0.01}
    return ("FLOAT", {**limits, "tooltip": tooltip})


def _widgets() -> dict[str, Any]:
    return {
        "kind": (
            "COMBO",
            {
                "options": list(KINDS),
                "default": "plain",
                "tooltip": "plain: classifier-free guidance. apg: adaptive projected guidance, "
                "which reads eta, norm_threshold and momentum.",
            },
        ),
        "start": _number(0.0, 0.0, 1.0, "The share of the steps before guidance begins."),
        "end": _number(
            1.0, 0.0, 1.0, "The share of the steps at which it ends; each of the rest costs half."
        ),
        "rescale": _number(
            0.0, 0.0, 1.0, "How far contrast is brought back to what it is without guidance."
        ),
        "eta": _number(0.0, 0.0, 1.0, "apg: how much is kept of the part that saturates colours."),
        "norm_threshold": _number(
            15.0, 0.0, 1000.0, "apg: no push is longer than this; 0 sets no limit."
        ),
        "momentum": _number(
            -0.5, -1.0, 1.0, "apg: the share of earlier pushes that is added to each."
        ),
    }


class StageCGuidance:
    """Stage C -> the same, guided otherwise."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "How guidance works in Stage C beyond its scale, which stays the sampler's cfg: on a part "
        "of the steps, with its contrast brought back, or as adaptive projected guidance (APG), "
        "which follows the text strongly without burnt colours. The presets change nothing."
    )
    SEARCH_ALIASES: ClassVar[list[str]] = ["apg", "rescale cfg", "guidance interval", "cfg"]
    RETURN_TYPES = ("WUERSTCHEN_STAGE_C",)
    RETURN_NAMES = ("stage_c",)
    OUTPUT_TOOLTIPS = ("Stage C as it is to be guided; for the Stage C Sampler.",)
    FUNCTION = "guide"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"stage_c": ("WUERSTCHEN_STAGE_C", _STAGE), **_widgets()}}

    def guide(self, stage_c: Part[StageC], **settings: Any) -> tuple[Part[StageC]]:
        return (stage_c.sampled(guidance=_guidance(**settings)),)


class StageBGuidance:
    """Stage B -> the same, guided otherwise."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "How guidance works in Stage B beyond its scale: as in Stage C, and with a scale of its "
        "own for the image embedding, apart from the text's. The presets change nothing."
    )
    SEARCH_ALIASES: ClassVar[list[str]] = ["two-axis guidance", "image cfg", "apg", "rescale cfg"]
    RETURN_TYPES = ("WUERSTCHEN_STAGE_B",)
    RETURN_NAMES = ("stage_b",)
    OUTPUT_TOOLTIPS = ("Stage B as it is to be guided; for the Stage B Sampler.",)
    FUNCTION = "guide"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        embedding_cfg = _number(
            0.0,
            0.0,
            100.0,
            "How strongly to follow the Stage C latent; the sampler's cfg is then the text's "
            "alone. 0 guides by both at once, as the reference does.",
        )
        return {
            "required": {
                "stage_b": ("WUERSTCHEN_STAGE_B", _STAGE),
                **_widgets(),
                "embedding_cfg": embedding_cfg,
            }
        }

    def guide(
        self, stage_b: Part[StageB], embedding_cfg: float, **settings: Any
    ) -> tuple[Part[StageB]]:
        return (stage_b.sampled(guidance=_guidance(embedding_cfg, **settings)),)


def _guidance(
    embedding_cfg: float = 0.0, *, kind: str, start: float, end: float, **numbers: float
) -> Guidance:
    if start >= end:
        raise SettingError(f"guidance starts at {start} and ends at {end}; end must be later.")
    return Guidance(
        start, end, projected=kind == "apg", embedding_scale=embedding_cfg or None, **numbers
    )


class Seamless:
    """Stages -> the same stages, for pictures that go on at their opposite edges."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Pictures whose opposite edges fit together, for textures and panoramas. Wire all three "
        "stages through it; sides must be multiples of 128."
    )
    SEARCH_ALIASES: ClassVar[list[str]] = ["tileable", "seamless", "circular padding", "texture"]
    RETURN_TYPES = ("WUERSTCHEN_STAGE_C", "WUERSTCHEN_STAGE_B", "WUERSTCHEN_STAGE_A")
    RETURN_NAMES = ("stage_c", "stage_b", "stage_a")
    OUTPUT_TOOLTIPS = (
        "Stage C without edges; for the Stage C Sampler.",
        "Stage B without edges; for the Stage B Sampler.",
        "Stage A without edges; for Stage A Decode and Encode.",
    )
    FUNCTION = "wrap"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        edges = {
            "options": list(EDGES),
            "default": "both",
            "tooltip": "Which opposite edges fit together.",
        }
        sockets = zip(cls.RETURN_NAMES, cls.RETURN_TYPES, strict=True)
        stages = {name: (socket, _STAGE) for name, socket in sockets}
        return {"required": {**stages, "edges": ("COMBO", edges)}}

    def wrap(
        self, stage_c: Part[StageC], stage_b: Part[StageB], stage_a: Part[StageA], edges: str
    ) -> tuple[Part[Any], ...]:
        return tuple(part.sampled(wraps=EDGES[edges]) for part in (stage_c, stage_b, stage_a))


NODES = {
    "WuerstchenStageCGuidance": (StageCGuidance, "Würstchen Stage C Guidance"),
    "WuerstchenStageBGuidance": (StageBGuidance, "Würstchen Stage B Guidance"),
    "WuerstchenSeamless": (Seamless, "Würstchen Seamless"),
}
