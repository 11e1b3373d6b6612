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
        sizes = {
            folded: sum(p.numel() for p in StageB(config, folded=folded).parameters())
            for folded in (False, True)
        }
    # Every block of levels 1 to 3, down and up, reads 16 instead of 1024 channels with 4c rows.
    rows = sum(
        2 * blocks * 4 * c for blocks, c in zip(config.blocks[1:], config.c_hidden[1:], strict=True)
    )
    mappers = 6 * (16 * 1024 + 1024)
    assert sizes[False] - sizes[True] == rows * (1024 - 16) + mappers == 206_542_848
