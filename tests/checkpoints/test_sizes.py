"""At the published configs the networks have exactly the published tensors, and no config.json is
needed to know these configs."""

import pytest
import torch
from torch import nn

from comfyui_wuerstchen.wuerstchen_core.checkpoints import configs
from comfyui_wuerstchen.wuerstchen_core.checkpoints.detect import detect
from comfyui_wuerstchen.wuerstchen_core.image_encoder import ImageEncoderConfig
from comfyui_wuerstchen.wuerstchen_core.stage_a import StageAConfig
from comfyui_wuerstchen.wuerstchen_core.stage_b import StageBConfig
from comfyui_wuerstchen.wuerstchen_core.stage_c import StageCConfig

from .tiny import in_original_layout

# (architecture, published config, tensors, tensors in the original layout, parameters)
PUBLISHED = {
    "stage_c": (
        configs.STAGE_C,
        StageCConfig(c=1536, c_cond=1280, depth=32, nhead=24),
        (648, 520),
        993_636_896,
    ),
    "stage_b": (configs.STAGE_B, StageBConfig(), (990, 814), 1_055_365_280),
    "stage_a": (configs.STAGE_A, StageAConfig(), (122, 122), 18_406_894),
    "image_encoder": (configs.IMAGE_ENCODER, ImageEncoderConfig(), None, 20_198_000),
}


@pytest.mark.parametrize("part", PUBLISHED)
def test_published_size(part: str) -> None:
    architecture, config, tensors, parameters = PUBLISHED[part]
    with torch.device("meta"):
        network: nn.Module = architecture.build(config)
    state = network.state_dict()
    original = in_original_layout(state)
    assert sum(p.numel() for p in network.parameters()) == parameters
    if tensors is not None:
        assert (len(state), len(original)) == tensors
    assert detect(state) is detect(original) is architecture.kind
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    assert configs.derive_config(architecture, shapes) == config
