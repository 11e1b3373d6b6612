"""Folding is exact to rounding and makes Stage B a fifth smaller."""

import pytest
import torch

from comfyui_wuerstchen.wuerstchen_core.fold import fold_embedding_mappers
from comfyui_wuerstchen.wuerstchen_core.stage_b import StageB, StageBConfig

from .tiny import STAGE_B, output, relative_error, with_weights

# A level of two convolutions, none without the embedding on top.
OTHER = StageBConfig(
    c_cond=40,
    c_hidden=(64, 64),
    nhead=(1, 1),
    blocks=(2, 1),
    level_config=("CTA", "CTCA"),
    inject_effnet=(True, False),
    clip_embd=48,
)


@pytest.mark.parametrize("config", [STAGE_B, OTHER], ids=["published", "other"])
def test_folded_equals_unfolded(config: StageBConfig) -> None:
    unfolded = with_weights(StageB(config))
    folded = StageB(config, folded=True).eval()
    folded.load_state_dict(fold_embedding_mappers(unfolded.state_dict(), config))
    assert relative_error(output(folded), output(unfolded)) <= 1e-5


def test_dtype_of_the_result() -> None:
    state = {name: v.half() for name, v in with_weights(StageB(STAGE_B)).state_dict().items()}
    name = "up_blocks.0.0.channelwise.0.weight"
    assert fold_embedding_mappers(state, STAGE_B)[name].dtype == torch.float16
    assert fold_embedding_mappers(state, STAGE_B, torch.float32)[name].dtype == torch.float32


def test_published_size() -> None:
    config = StageBConfig()
    with torch.device("meta"):
        unfolded, folded = StageB(config), StageB(config, folded=True)
    # 22 blocks of 1280 and 640 channels a way read 1024 channels of the mapped embedding.
    rows = sum(
        2 * blocks * 4 * c
        for blocks, c, reads in zip(
            config.blocks, config.c_hidden, config.inject_effnet, strict=True
        )
        if reads
    )
    mappers = 6 * (16 * 1024 + 1024)
    saved = rows * (1024 - 16) + mappers
    count = {n: sum(p.numel() for p in net.parameters()) for n, net in
             {"unfolded": unfolded, "folded": folded}.items()}
    assert count["unfolded"] - count["folded"] == saved
    assert round(saved / 1e6, 1) == 206.5
