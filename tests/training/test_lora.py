"""Training a LoRA: it starts without a change, learns beside frozen weights, and its file says
the same."""

from pathlib import Path

import torch

from comfyui_wuerstchen.wuerstchen_core.checkpoints.configs import STAGE_C
from comfyui_wuerstchen.wuerstchen_core.checkpoints.load import Weights, network_of
from comfyui_wuerstchen.wuerstchen_core.lora import Changed, match, read_lora
from comfyui_wuerstchen.wuerstchen_core.stage_c import StageC, StageCConfig
from comfyui_wuerstchen.wuerstchen_core.training.demo.lora import ENDINGS
from comfyui_wuerstchen.wuerstchen_core.training.lora import LoraLinear, add_lora, save_lora

CONFIG = StageCConfig(c=64, c_cond=32, depth=2, nhead=1, dropout=0.0)


def heads(network: StageC) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 16, 6, 3, generator=generator)
    text = torch.randn(2, 7, 32, generator=generator)
    t = torch.tensor([0.9, 0.3])
    return torch.cat(network.heads(x, t, network.prepare(text)), dim=1)


def test_a_lora_learns_and_its_file_says_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = StageC(CONFIG).eval()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.no_grad():
        plain = heads(network)
    add_lora(network, ENDINGS, rank=2)
    pairs = [module for module in network.modules() if isinstance(module, LoraLinear)]
    assert len(pairs) == 4 * CONFIG.depth
    assert torch.equal(heads(network), plain)

    trained = [value for value in network.parameters() if value.requires_grad]
    assert len(trained) == 2 * len(pairs)
    optimizer = torch.optim.Adam(trained, lr=0.02)
    losses = []
    for _ in range(30):
        loss = (heads(network) - plain.flip(0)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    for pair in pairs:
        assert pair.linear.weight.grad is None

    path = tmp_path / "new" / "lora.safetensors"
    save_lora(network, path, "a test")
    lora = read_lora(path)
    changes = match(lora, state).changes(1.0)
    assert len(changes) == len(pairs) and lora.about["modelspec.description"] == "a test"
    again = network_of(STAGE_C, Weights(CONFIG, Changed(state, changes)), "float32")
    with torch.no_grad():
        torch.testing.assert_close(heads(again), heads(network), rtol=1e-2, atol=1e-2)
        assert not torch.allclose(heads(again), plain, atol=0.05)
