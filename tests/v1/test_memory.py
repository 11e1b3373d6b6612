"""What v1's Stage B is said to need, and batches that do not fit."""

import pytest
import torch

from comfyui_wuerstchen.wuerstchen_core.memory import needed
from comfyui_wuerstchen.wuerstchen_core.noise import SampleNoise
from comfyui_wuerstchen.wuerstchen_core.residency import place
from comfyui_wuerstchen.wuerstchen_core.sampling import StepInfo
from comfyui_wuerstchen.wuerstchen_core.v1.generate import sample_tokens
from comfyui_wuerstchen.wuerstchen_core.v1.paella import Paella, PaellaConfig
from comfyui_wuerstchen.wuerstchen_core.v1.sampling import TOKENS_AT_ONCE, TokenSettings

from ..peak_memory import peak_bytes
from .tiny import WIDTH, networks

CPU = torch.device("cpu")


def stage_b() -> Paella:
    """The published proportions at an eighth of the width."""
    config = PaellaConfig(
        c_in=32, c_out=32, num_labels=1024, c_hidden=(80, 160, 160), c_cond=32, byt5_embd=32
    )
    return Paella(config)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_what_paella_is_said_to_need_is_enough_and_not_far_off(dtype: torch.dtype) -> None:
    network = place(stage_b(), CPU, dtype)
    embedding, text = torch.randn(1, 16, 12, 12), torch.randn(1, 77, 32)
    tokens = torch.randint(1024, (1, 128, 128))
    walk = TokenSettings().times
    peak = peak_bytes(lambda: network(tokens, 1.0, network.prepare(embedding, text, walk)))
    assert 0.4 <= peak / needed(network, (1, 1, 128, 128)) <= 1


@torch.no_grad()
def test_the_logits_of_a_whole_picture_are_never_in_memory() -> None:
    network, size = stage_b().eval(), (1, 1, 128, 128)
    embedding, text = torch.randn(1, 16, 12, 12), torch.randn(2, 77, 32)
    seeds, settings = SampleNoise([0]), TokenSettings(steps=1)
    peak = peak_bytes(
        lambda: sample_tokens(network, embedding, text[:1], text[1:], None, seeds, settings)
    )
    all_logits = 128 * 128 * network.config.num_labels * 4  # bytes, of one of two branches
    assert peak < 2 * needed(network, size) + 8 * TOKENS_AT_ONCE * 1024 * 4 < 1.5 * all_logits


def test_a_batch_in_parts_is_the_same_batch() -> None:
    network = networks()["stage_b"]
    generator = torch.Generator().manual_seed(1)
    embedding = torch.randn(5, 16, 3, 3, generator=generator)
    text = torch.randn(2, 77, WIDTH, generator=generator)
    steps: list[tuple[int, int, int]] = []

    def note(info: StepInfo) -> None:
        steps.append((info.step, info.steps, len(info.x0)))

    def run() -> torch.Tensor:
        return sample_tokens(
            network, embedding, text[:1], text[1:], None, SampleNoise(range(5)),
            TokenSettings(steps=3), callback=note,
        )  # fmt: skip

    whole = run()
    # As a host says it: two samples, each under both conditions.
    network.free_memory = lambda: 4 * needed(network, (1, 1, 32, 32))  # type: ignore[assignment]
    parts = run()
    assert steps[:3] == [(0, 3, 5), (1, 3, 5), (2, 3, 5)]
    assert steps[3:] == [(i, 9, 2 if i < 6 else 1) for i in range(9)]
    assert (parts == whole).float().mean() > 0.999
