"""The samplers of Würstchen v1's Stage C, which is sampled as v2's, and of its Stage B, Paella."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from ..wuerstchen_core.geometry import stage_b_grid
from ..wuerstchen_core.preview import Array, LinearMap, cells_of
from ..wuerstchen_core.sampling import StepInfo
from ..wuerstchen_core.stage_a import StageA
from ..wuerstchen_core.v1.generate import check_embedding, codebook_of, sample_tokens
from ..wuerstchen_core.v1.paella import Paella
from ..wuerstchen_core.v1.preview import codebook_map
from ..wuerstchen_core.v1.sampling import MODES, TokenSettings
from . import previews, runtime, samplers
from .conditions import texts_of
from .latent import SIZE_KEY, STAGE_C_CHANNELS, V1_KEY, Latent, geometry_of, like, noise_for
from .parts import Part
from .text import Conditioning
from .v1 import CATEGORY

if TYPE_CHECKING:
    from PIL import Image

Widgets = dict[str, tuple[str, dict[str, Any]]]


def _preset(widgets: Widgets, **presets: Any) -> Widgets:
    """These widgets with other presets."""
    return {
        name: (kind, {**options, "default": presets[name]} if name in presets else options)
        for name, (kind, options) in widgets.items()
    }


class StageCSampler(samplers.StageCSampler):
    """Text -> v1's Stage C latent."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Würstchen v1's Stage C, the prior: from text to the small latent that decides what the "
        "picture shows. Trained for pictures of 512×512."
    )
    SEARCH_ALIASES: ClassVar[list[str]] = ["wuerstchen v1 prior", "ksampler", "stage c"]
    OUTPUT_TOOLTIPS = ("The Stage C latent, batch×16×height×width; v1's Stage B reads it.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        types = super().INPUT_TYPES()
        required = _preset(types["required"], steps=60, cfg=6.0, scheduler="uniform")
        required["stage_c"] = (
            "WUERSTCHEN_V1_STAGE_C",
            {"tooltip": "From Load Würstchen v1 Pipeline."},
        )
        return {**types, "required": required}

    def sample(self, latent_image: Latent, **inputs: Any) -> tuple[Latent]:
        if V1_KEY not in latent_image:  # an empty one, or one that another node made
            check_embedding(latent_image["samples"], STAGE_C_CHANNELS)
        unmarked = {key: value for key, value in latent_image.items() if key != V1_KEY}
        (made,) = super().sample(latent_image=unmarked, **inputs)
        return ({**made, V1_KEY: True},)


class StageBSampler:
    """v1's Stage C latent -> tokens."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Würstchen v1's Stage B, Paella: from the Stage C latent and the text to tokens of Stage "
        "A's codebook. All tokens are picked at once, and some of them made random again before "
        "the next step."
    )
    SEARCH_ALIASES: ClassVar[list[str]] = ["paella", "token sampler", "stage b"]
    RETURN_TYPES = ("LATENT",)
    RETURN_NAMES = ("tokens",)
    OUTPUT_TOOLTIPS = ("Tokens, batch×1×height×width; Würstchen v1 Stage A Decode shows them.",)
    FUNCTION = "sample"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        widgets = samplers.StageCSampler.INPUT_TYPES()["required"]
        usual = _preset(widgets, steps=8, cfg=2.0)
        seed, steps, cfg, denoise = (usual[name] for name in ("seed", "steps", "cfg", "denoise"))
        cfg[1]["tooltip"] = (
            "Guidance scale at the first step: how strongly to follow latent and text. 1 here and "
            "in cfg_end turns it off, which halves the work."
        )
        temperature = {"min": 0.01, "max": 10.0, "step": 0.01}
        return {
            "required": {
                "stage_b": (
                    "WUERSTCHEN_V1_STAGE_B",
                    {"tooltip": "From Load Würstchen v1 Pipeline."},
                ),
                "stage_c_latent": (
                    "LATENT",
                    {
                        "tooltip": "What the picture shows: from Würstchen v1 Stage C Sampler, or "
                        "v1 Image Encode."
                    },
                ),
                "positive": (
                    "CONDITIONING",
                    {"tooltip": "The text, by CLIP-H; usually the one that Stage C read."},
                ),
                "seed": seed,
                "steps": steps,
                "cfg": cfg,
                "cfg_end": (
                    cfg[0],
                    {**cfg[1], "tooltip": "Guidance scale at the last step; linear between."},
                ),
                "temperature": (
                    "FLOAT",
                    {
                        **temperature,
                        "default": 1.0,
                        "tooltip": "At the first step: below 1 likely tokens are picked more "
                        "often, above 1 less.",
                    },
                ),
                "temperature_end": (
                    "FLOAT",
                    {
                        **temperature,
                        "default": 0.6,
                        "tooltip": "At the last step; linear between.",
                    },
                ),
                "mode": (
                    "COMBO",
                    {
                        "options": list(MODES),
                        "default": MODES[0],
                        "tooltip": "multinomial draws each token by its probability; argmax takes "
                        "the likeliest; quant takes the mean of the codebook by probability, which "
                        "is smooth, and needs stage_a.",
                    },
                ),
                "denoise": denoise,
            },
            "optional": {
                "negative": (
                    "CONDITIONING",
                    {"tooltip": "What to avoid; wire an empty text if nothing. Read unless cfg 1."},
                ),
                "latent_image": (
                    "LATENT",
                    {
                        "tooltip": "For denoise below 1: a picture from Würstchen v1 Stage A "
                        "Encode. A noise mask on it keeps the rest of the picture."
                    },
                ),
                "stage_a": (
                    "WUERSTCHEN_STAGE_A",
                    {"tooltip": "For previews and for the mode quant, which read its codebook."},
                ),
            },
        }

    def sample(
        self,
        stage_b: Part[Paella],
        stage_c_latent: Latent,
        positive: Conditioning,
        seed: int,
        steps: int,
        cfg: float,
        cfg_end: float,
        temperature: float,
        temperature_end: float,
        mode: str,
        denoise: float,
        negative: Conditioning | None = None,
        latent_image: Latent | None = None,
        stage_a: Part[StageA] | None = None,
    ) -> tuple[Latent]:
        settings = TokenSettings(
            steps, (cfg, cfg_end), (temperature, temperature_end), mode, denoise
        )
        geometry = geometry_of(stage_c_latent)
        embedding = stage_c_latent["samples"]
        texts = texts_of(positive, "positive", geometry)
        assert texts is not None  # a required input
        avoided = texts_of(negative, "negative", geometry) if settings.guides else None
        codes = None if stage_a is None else _Codes.of(stage_a, stage_c_latent)
        grid = stage_b_grid((embedding.shape[-2], embedding.shape[-1]))
        shape = samplers.run_on((len(embedding), 1, *grid), texts, avoided)
        with runtime.running(lambda: stage_b.ready(shape)) as network:
            samples = sample_tokens(
                network,
                embedding,
                texts,
                avoided,
                None if latent_image is None else latent_image["samples"],
                noise_for(stage_c_latent, seed),
                settings,
                None if codes is None else codes.codebook,
                runtime.step_callback(None if codes is None else codes.paint),
                samplers.mask_of(latent_image, geometry),
            )
        made = like(stage_c_latent, samples)
        return (previews.with_origin(made, None, read=stage_c_latent),)


class _Codes:
    """Stage A's codebook, and previews of tokens by what its entries look like."""

    def __init__(
        self, codebook: Tensor, colours: LinearMap | None, size: tuple[int, int] | None
    ) -> None:
        """colours: None where nobody looks at previews."""
        self.codebook = codebook  # N×C, on the CPU
        self._painter = previews.Painter(self._cells, colours, size)
        self.paint: Callable[[StepInfo], Image.Image | None] | None = (
            None if colours is None else self._painter
        )

    @classmethod
    def of(cls, stage_a: Part[StageA], latent: Latent) -> "_Codes":
        """latent: gives the size of the picture."""
        colours = None
        with runtime.running(lambda: stage_a.ready((1, 4, 1, 1))) as network:
            codebook = codebook_of(network)
            if runtime.surroundings().previews is not None:
                with previews.harmless():
                    colours = codebook_map(network)
        return cls(codebook, colours, latent.get(SIZE_KEY))

    def _cells(self, tokens: Tensor) -> Array:
        return cells_of(self.codebook[tokens[0].cpu()].movedim(-1, 0))


NODES = {
    "WuerstchenV1StageCSampler": (StageCSampler, "Würstchen v1 Stage C Sampler"),
    "WuerstchenV1StageBSampler": (StageBSampler, "Würstchen v1 Stage B Sampler"),
}
