"""Pictures without edges: moving what goes in moves what comes out, around the edge too."""

import pytest
import torch
from torch import Tensor

from comfyui_wuerstchen.wuerstchen_core.autoencode import decode, encode
from comfyui_wuerstchen.wuerstchen_core.layers import NO_WRAPS, Wraps
from comfyui_wuerstchen.wuerstchen_core.resize import resize_bicubic
from comfyui_wuerstchen.wuerstchen_core.stage_a import StageA, StageAConfig
from comfyui_wuerstchen.wuerstchen_core.stage_b import StageB
from comfyui_wuerstchen.wuerstchen_core.stage_c import StageC

from ..checkpoints.tiny import DECODER_WIDTH, PRIOR_WIDTH, STAGE_B, STAGE_C
from ..reference.named_weights import tamed

WRAPS = [(True, True), (True, False), (False, True)]


def moved(x: Tensor, wraps: Wraps, cells: int) -> Tensor:
    """x a few cells further along each side that wraps."""
    return x.roll((cells * wraps[0], cells * wraps[1]), dims=(2, 3))


def check(found: Tensor, expected: Tensor, plain: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert (plain - expected).abs().max() > 100 * (found - expected).abs().max()


@pytest.mark.parametrize("wraps", WRAPS)
@torch.no_grad()
def test_stage_c(wraps: Wraps) -> None:
    network: StageC = tamed(StageC(STAGE_C))  # type: ignore[assignment]
    x, text = torch.randn(2, 16, 6, 9), torch.randn(2, 7, PRIOR_WIDTH)

    def eps(x: Tensor, wraps: Wraps) -> Tensor:
        return network(x, 0.5, network.prepare(text, wraps=wraps))

    expected = moved(eps(x, wraps), wraps, 2)
    check(eps(moved(x, wraps, 2), wraps), expected, eps(moved(x, wraps, 2), NO_WRAPS))


@pytest.mark.parametrize("wraps", WRAPS)
@torch.no_grad()
def test_stage_b(wraps: Wraps) -> None:
    network: StageB = tamed(StageB(STAGE_B))  # type: ignore[assignment]
    x, embedding = torch.randn(1, 4, 64, 96), torch.randn(1, 16, 6, 9)
    text = torch.randn(1, 5, DECODER_WIDTH)

    def eps(steps: int, wraps: Wraps, around: Wraps) -> Tensor:
        context = network.prepare(moved(embedding, around, 3 * steps), (64, 96), text, (), wraps)
        return network(moved(x, around, 32 * steps), 0.5, context)

    expected = moved(eps(0, wraps, wraps), wraps, 32)
    check(eps(1, wraps, wraps), expected, eps(1, NO_WRAPS, wraps))


@pytest.mark.parametrize("wraps", WRAPS)
@torch.no_grad()
def test_stage_a(wraps: Wraps) -> None:
    network: StageA = tamed(StageA(StageAConfig(embed_dim=32, bottleneck_blocks=12)))  # type: ignore[assignment]
    network.eval()
    latent, pixels = torch.randn(1, 4, 32, 40), torch.rand(1, 3, 128, 160)
    turned = moved(latent, wraps, 5)
    expected = moved(decode(network, latent, None, wraps), wraps, 20)
    check(decode(network, turned, None, wraps), expected, decode(network, turned))
    turned = moved(pixels, wraps, 20)
    expected = moved(encode(network, pixels, None, wraps), wraps, 5)
    check(encode(network, turned, None, wraps), expected, encode(network, turned))


def test_the_middle_of_stage_a_is_that_of_the_plain_one() -> None:
    network: StageA = tamed(StageA(StageAConfig(embed_dim=32, bottleneck_blocks=2)))  # type: ignore[assignment]
    network.eval()
    latent = torch.randn(1, 4, 32, 32)
    with torch.no_grad():
        plain, wrapped = decode(network, latent), decode(network, latent, None, (True, True))
    assert plain.shape == wrapped.shape
    torch.testing.assert_close(plain[..., 20:-20, 20:-20], wrapped[..., 20:-20, 20:-20])


@pytest.mark.parametrize("size", [(128, 128), (64, 64), (16, 16), (8, 8)])
def test_resizing_around_the_edge(size: tuple[int, int]) -> None:
    x = torch.randn(1, 2, 24, 24, dtype=torch.float64)
    found = resize_bicubic(moved(x, (True, True), 3), size, (True, True))
    step = size[0] // 8
    expected = moved(resize_bicubic(x, size, (True, True)), (True, True), step)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    # The same picture as with edges but for their half cell: its middle agrees.
    smooth = torch.linspace(0, 1, 24, dtype=torch.float64).expand(1, 1, 24, 24)
    plain, wrapped = resize_bicubic(smooth, size), resize_bicubic(smooth, size, (True, True))
    inner = slice(size[1] // 4, -size[1] // 4)
    torch.testing.assert_close(plain[..., inner], wrapped[..., inner], rtol=0.1, atol=0.03)
