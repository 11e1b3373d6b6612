"""The objectives against their formulas."""

import pytest
import torch

from comfyui_wuerstchen.wuerstchen_core.schedule import add_noise, alpha_bar_of
from comfyui_wuerstchen.wuerstchen_core.stage_a import StageA, StageAConfig
from comfyui_wuerstchen.wuerstchen_core.stage_b import StageB, StageBConfig
from comfyui_wuerstchen.wuerstchen_core.stage_c import StageC, StageCConfig
from comfyui_wuerstchen.wuerstchen_core.training.initialise import (
    initialise_stage_b,
    initialise_stage_c,
)
from comfyui_wuerstchen.wuerstchen_core.training.objectives import (
    corrupt_embedding,
    diffusion_loss,
    drop_captions,
    p2_weight,
    shifted_times,
    stratified_times,
    x0_weight,
)
from comfyui_wuerstchen.wuerstchen_core.training.vqgan import reconstruction_losses


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_perfect_model_has_no_loss_and_the_weight_is_p2() -> None:
    x0, t = torch.randn(6, 4, 8, 8), torch.linspace(0.1, 1, 6)
    noise = torch.randn(x0.shape, generator=generator(5))
    perfect = diffusion_loss(lambda x, t: noise, x0, t, generator(5))
    assert torch.equal(perfect, torch.zeros(6))
    off_by_one = diffusion_loss(lambda x, t: noise + 1, x0, t, generator(5))
    torch.testing.assert_close(off_by_one, p2_weight(t))
    torch.testing.assert_close(p2_weight(t), 1 - alpha_bar_of(t))


def test_x0_weight_turns_eps_errors_into_x0_errors() -> None:
    t, x0, noise = torch.tensor([0.6]), torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8)
    signal, wrong = alpha_bar_of(t), noise + 0.1
    x = add_noise(x0, noise, t)
    guess = (x - (1 - signal).sqrt() * wrong) / signal.sqrt()
    error = (wrong - noise).square().mean() * x0_weight(t, lowest=0)
    torch.testing.assert_close(error[0], (guess - x0).square().mean())
    assert x0_weight(torch.tensor([0.01]), lowest=1).item() == 1
    assert x0_weight(torch.tensor([1.0]), highest=50).item() == 50


def test_times_stay_in_range_and_cover_it() -> None:
    shifted = shifted_times(10_000, generator())
    assert shifted.min() >= 0.001 and shifted.max() == 1
    assert (shifted == 1).float().mean() == pytest.approx(0.08 / 1.08, abs=0.01)
    even = stratified_times(1000, generator(), 0.2, 0.9).sort().values
    assert even[0] >= 0.2 and even[-1] <= 0.9
    torch.testing.assert_close(even, torch.linspace(0.2, 0.9, 1000), atol=1e-3, rtol=0)
    assert stratified_times(1000, generator(), power=0.4).median() > 0.7


def test_embeddings_are_dropped_and_noised_in_the_stated_shares() -> None:
    embedding = torch.randn(4000, 16, 1, 1) * 42 - 1
    corrupted = corrupt_embedding(embedding, generator())
    same = (corrupted == embedding).all(dim=(1)).flatten()
    zero = (corrupted == 0).all(dim=(1)).flatten()
    assert zero.float().mean() == pytest.approx(0.05, abs=0.01)
    assert same.float().mean() == pytest.approx(0.95 * 0.7, abs=0.02)


def test_captions_are_dropped_in_the_stated_share() -> None:
    dropped = drop_captions(["a"] * 2000, 0.1, generator())
    assert dropped.count("") == pytest.approx(200, abs=50)
    assert set(dropped) == {"", "a"}


def test_starting_weights_predict_what_the_reference_starts_with() -> None:
    stage_c = StageC(StageCConfig(c=64, depth=2, nhead=1, c_cond=8)).eval()
    for small in (False, True):
        initialise_stage_c(stage_c, small)
        x, t, text = torch.randn(1, 16, 6, 6), torch.tensor([0.5]), torch.randn(1, 77, 8)
        eps = stage_c(x, t, stage_c.prepare(text))
        torch.testing.assert_close(eps, x / (1 + 1e-5))
    stage_b = StageB(StageBConfig(
        c_hidden=(16, 32), nhead=(-1, 1), blocks=(1, 1), level_config=("CT", "CTA"),
        inject_effnet=(False, True), c_cond=8, clip_embd=8,
    )).eval()  # fmt: skip
    initialise_stage_b(stage_b)
    x = torch.randn(1, 4, 32, 32)
    a, b = stage_b.heads(x, t, stage_b.prepare(torch.randn(1, 16, 3, 3), (32, 32), text))
    assert torch.equal(a, torch.zeros_like(a)) and torch.allclose(b, torch.tensor(0.5))


def test_the_vqgan_objective_reaches_every_part() -> None:
    network = StageA(StageAConfig(embed_dim=16, bottleneck_blocks=1, num_vq_embeddings=8))
    for name, value in network.named_parameters():
        if name.endswith("gammas"):
            value.data.fill_(0.3)
    losses = reconstruction_losses(network, torch.rand(4, 3, 16, 16), generator())
    sum(losses.values()).backward()
    assert losses.keys() == {"mse", "codebook", "commitment"}
    for name, value in network.named_parameters():
        assert value.grad is not None and value.grad.isfinite().all(), name
