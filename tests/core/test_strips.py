"""Stage A in strips of rows equals Stage A in one piece, and needs a fraction of the memory."""

from __future__ import annotations

import pytest
import torch
from diffusers.pipelines.deprecated.wuerstchen.modeling_paella_vq_model import PaellaVQModel
from torch import Tensor, nn

from comfyui_wuerstchen.wuerstchen_core.autoencode import decode
from comfyui_wuerstchen.wuerstchen_core.generate import decode_pixels, encode_pixels
from comfyui_wuerstchen.wuerstchen_core.stage_a import StageA, StageAConfig
from comfyui_wuerstchen.wuerstchen_core.strips import Layer, in_strips

from ..peak_memory import peak_bytes

CONFIG = {"embed_dim": 32, "bottleneck_blocks": 12, "num_vq_embeddings": 8}


def lively(network: nn.Module) -> nn.Module:
    """Random weights with open gates, so that every row matters to those beside it."""
    generator = torch.Generator().manual_seed(0)
    for name, value in network.named_parameters():
        fan_in = value[0].numel() if value.ndim > 1 else 10
        spread = 1.0 if name.endswith("gammas") else fan_in**-0.5
        value.data.normal_(0, spread, generator=generator)
    return network.eval()


def stage_a(**changes: int) -> StageA:
    network = lively(StageA(StageAConfig(**{**CONFIG, **changes})))
    assert isinstance(network, StageA)
    return network


def largest_error(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    return ((found - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("rows", [1, 2, 3, 8, 25])
@torch.no_grad()
def test_strips_equal_the_whole(rows: int, dtype: torch.dtype, tolerance: float) -> None:
    network = stage_a().to(dtype)
    network.out_block = nn.Sequential()  # its result is always float32
    latent, pixels = torch.randn(2, 4, 41, 9, dtype=dtype), torch.rand(2, 3, 164, 36, dtype=dtype)
    decoded = list(network.decode_strips(latent, rows))
    encoded = list(network.encode_strips(pixels, rows))
    assert len(decoded) > 1 and len(encoded) > 1
    assert largest_error(torch.cat(decoded, dim=2), network.decode(latent)) <= tolerance
    assert largest_error(torch.cat(encoded, dim=2), network.encode(pixels)) <= max(tolerance, 1e-6)


@torch.no_grad()
def test_only_the_rows_beside_a_strip_are_read_again() -> None:
    read: list[int] = []

    def blur(x: Tensor) -> Tensor:
        read.append(x.shape[2])
        padded = nn.functional.pad(x, (0, 0, 1, 1), mode="replicate")
        return padded[:, :, :-2] + padded[:, :, 1:-1] + padded[:, :, 2:]

    x = torch.randn(1, 1, 20, 3, dtype=torch.float64)
    layers = [Layer(blur, reads_neighbours=True)] * 3
    strips = list(in_strips(layers, x, rows=4))
    rows_read = read[: 3 * len(strips) : 3]  # by the first layer
    torch.testing.assert_close(torch.cat(strips, dim=2), blur(blur(blur(x))))
    assert [strip.shape[2] for strip in strips] == [4, 4, 4, 4, 4]
    # The layers hold back 3 rows, so 7, 4, 4, 4 and 1 come in; later strips read two again.
    assert rows_read == [7, 6, 6, 6, 3]


@pytest.mark.parametrize("side", [4, 8, 60])
@torch.no_grad()
def test_pictures_of_any_size_equal_diffusers(side: int) -> None:
    reference = lively(PaellaVQModel(**CONFIG))
    network = stage_a()
    network.load_state_dict(reference.state_dict())
    latent = torch.randn(1, 4, 300, side) * 0.3  # several strips of the size that is chosen
    assert largest_error(decode(network, latent), reference.decode(latent).sample) <= 1e-5


@torch.no_grad()
def test_a_batch_equals_its_singles() -> None:
    network, latent = stage_a(), torch.randn(3, 4, 20, 12)
    pixels = decode_pixels(network, latent)
    assert torch.equal(pixels[1:2], decode_pixels(network, latent[1:2]))
    encoded = encode_pixels(network, pixels)
    assert torch.equal(encoded[2:], encode_pixels(network, pixels[2:]))


@torch.no_grad()
def test_little_memory_makes_smaller_strips_of_the_same_picture() -> None:
    network, latent = stage_a(), torch.randn(1, 4, 100, 64)
    steps: list[tuple[int, int]] = []
    expected = decode(network, latent, lambda *done: steps.append(done))
    assert [total for _, total in steps] == [400] * len(steps) and steps[-1] == (400, 400)
    network.free_memory = lambda: 4 * 10**6  # type: ignore[assignment]  # as a host says it
    fewer: list[tuple[int, int]] = []
    found = decode(network, latent, lambda *done: fewer.append(done))
    assert len(fewer) > 2 * len(steps)
    assert largest_error(found, expected) <= 1e-5


@torch.no_grad()
def test_peak_memory_against_diffusers() -> None:
    """As at 1024²: 256 rows of 256 cells."""
    reference, network = PaellaVQModel(**CONFIG).eval(), stage_a()
    latent, pixels = torch.zeros(1, 4, 256, 256), torch.zeros(1, 3, 1024, 1024)
    for ours, theirs in (
        (lambda: decode_pixels(network, latent), lambda: reference.decode(latent).sample),
        (lambda: encode_pixels(network, pixels), lambda: reference.encode(pixels).latents),
    ):
        assert peak_bytes(ours) <= 0.4 * peak_bytes(theirs)
