"""v1's networks equal the original's, whose outputs tests/reference/record_v1.py recorded."""

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from comfyui_wuerstchen.wuerstchen_core.checkpoints import configs
from comfyui_wuerstchen.wuerstchen_core.checkpoints.detect import detect
from comfyui_wuerstchen.wuerstchen_core.checkpoints.rename import to_diffusers_names
from comfyui_wuerstchen.wuerstchen_core.conditions import Condition
from comfyui_wuerstchen.wuerstchen_core.generate import SamplerSettings, sample_stage_c
from comfyui_wuerstchen.wuerstchen_core.guidance import Predictor
from comfyui_wuerstchen.wuerstchen_core.image_encoder import EFFICIENTNET_V2_L
from comfyui_wuerstchen.wuerstchen_core.noise import SampleNoise
from comfyui_wuerstchen.wuerstchen_core.stage_c import StageC
from comfyui_wuerstchen.wuerstchen_core.v1.paella import Paella, PaellaConfig
from comfyui_wuerstchen.wuerstchen_core.v1.sampling import TokenSettings, sample
from comfyui_wuerstchen.wuerstchen_core.v1.stage_c import StageCV1Config

from ..checkpoints.tiny import in_original_layout
from ..paths import DATA
from ..reference.named_weights import named_weights
from ..reference.v1_cases import (
    PAELLA,
    PRIOR,
    PRIOR_CFG,
    PRIOR_STEPS,
    SAMPLED,
    SEED,
    inputs,
    layers_of,
    tamed_head,
    tensors_of,
)

RECORDED = DATA / "v1.safetensors"
TOLERANCE = 1e-5

# (architecture, published config, parameters, what the original's are recorded as)
PUBLISHED = {
    "prior": (
        configs.STAGE_C_V1,
        StageCV1Config(c=1536, c_cond=1024, depth=32, nhead=24),
        993_243_680,
    ),
    "paella": (configs.STAGE_B_V1, PaellaConfig(), 730_814_336),
    "efficientnet_v2_l": (configs.IMAGE_ENCODER_V1, EFFICIENTNET_V2_L, 117_254_784),
}


@pytest.fixture(scope="module")
def recorded() -> dict[str, Tensor]:
    return load_file(RECORDED)


@pytest.fixture(scope="module")
def digests() -> dict[str, str]:
    with safe_open(RECORDED, "pt") as file:
        return file.metadata()


def original_weights(network: nn.Module) -> dict[str, Tensor]:
    """Weights by the original's names, as the recording gave them to the original."""
    layout = in_original_layout(network.state_dict())
    return named_weights({name: value.shape for name, value in layout.items()})


@pytest.fixture(scope="module")
def paella() -> Paella:
    lists = {k: tuple(v) if isinstance(v, list) else v for k, v in PAELLA.items()}
    network = Paella(PaellaConfig(**lists)).eval()
    network.load_state_dict(to_diffusers_names(original_weights(network)))
    return network


def relative_error(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("case", ["logits", "logits_without_text"])
@torch.no_grad()
def test_paella_equals_the_original(paella: Paella, recorded: dict[str, Tensor], case: str) -> None:
    given = inputs()
    text = given["text"] if case == "logits" else None
    context = paella.prepare(given["embedding"], text)
    found = paella.logits(paella(given["tokens"], given["times"], context))
    assert recorded[case].std() > 0.1
    assert relative_error(found, recorded[case]) <= TOLERANCE


@torch.no_grad()
def test_times_that_were_announced_change_nothing(paella: Paella) -> None:
    given = inputs()
    tokens, embedding, text = (given[name][:1] for name in ("tokens", "embedding", "text"))
    announced = paella(tokens, 0.7, paella.prepare(embedding, text, (1.0, 0.7)))
    asked = paella(tokens, torch.tensor([0.7]), paella.prepare(embedding, text))
    assert relative_error(announced, asked) <= TOLERANCE


@pytest.mark.parametrize("case", SAMPLED)
@torch.no_grad()
def test_sampling_equals_the_original(
    paella: Paella, recorded: dict[str, Tensor], case: str
) -> None:
    """Taking the likeliest tokens, with the original's own stream of random numbers."""
    given, options = inputs(), dict(SAMPLED[case])
    settings = TokenSettings(mode="argmax", start=options.pop("t_start", 1.0), **options)
    embedding, text = given["embedding"][:1], given["text"]
    branches = [
        [Condition((torch.zeros_like(embedding), text[1:]))],
        [Condition((embedding, text[:1]))],
    ]
    cfg = {t: settings.cfg_at(step) for step, t in enumerate(settings.times[:-1])}
    model = Predictor(paella, paella.prepare, branches, [lambda t: cfg[t]])
    noise = SampleNoise([SEED])
    random = noise.integers(PAELLA["num_labels"], tuple(given["tokens"].shape[1:]))
    start = given["tokens"][:1] if settings.start < 1 else random
    found = sample(model, paella.logits, start, random, settings, noise)
    expected = recorded[f"sampled_{case}"]
    assert len(expected.unique()) > 10
    assert torch.equal(found, expected)


def test_the_prior_samples_as_the_original(recorded: dict[str, Tensor]) -> None:
    """In the image encoder's own space, without v2's factor of 42."""
    network = StageC(StageCV1Config(**PRIOR)).eval()
    network.load_state_dict(to_diffusers_names(tamed_head(original_weights(network))))
    text = inputs()["text"]
    settings = SamplerSettings(PRIOR_STEPS, PRIOR_CFG, scheduler="uniform")
    found = sample_stage_c(
        network, text[:1], text[1:], torch.zeros(1, 16, 6, 6), SampleNoise([SEED]), settings
    )
    assert relative_error(found, recorded["prior"]) <= 1e-4


@pytest.mark.parametrize("part", PUBLISHED)
def test_published_size(part: str, digests: dict[str, str]) -> None:
    architecture, config, parameters = PUBLISHED[part]
    with torch.device("meta"):
        network: nn.Module = architecture.build(config)
    state = network.state_dict()
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert detect(state) is detect(in_original_layout(state)) is architecture.kind
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    assert configs.derive_config(architecture, shapes) == config
    if part == "efficientnet_v2_l":
        assert layers_of(network.get_submodule("backbone")) == digests[part]
    else:
        assert tensors_of(in_original_layout(state)) == digests[part]
