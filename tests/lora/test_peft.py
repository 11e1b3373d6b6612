"""Files that PEFT and diffusers write, against what the adapted network of diffusers gives."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.pipelines.deprecated.wuerstchen import WuerstchenPrior, WuerstchenPriorPipeline

from comfyui_wuerstchen.wuerstchen_core.checkpoints.configs import STAGE_C
from comfyui_wuerstchen.wuerstchen_core.checkpoints.load import Weights, network_of
from comfyui_wuerstchen.wuerstchen_core.lora import Changed, match, read_lora
from comfyui_wuerstchen.wuerstchen_core.stage_c import StageCConfig

peft = pytest.importorskip("peft")

CONFIG = StageCConfig(c=64, c_cond=32, depth=2, nhead=1, dropout=0.0)
TARGETS = ["to_k", "to_q", "to_v", "to_out.0"]
LINEARS = [*TARGETS, "channelwise.0", "channelwise.4", "mapper", "kv_mapper.1"]


@pytest.fixture
def reference() -> Any:
    torch.manual_seed(3)
    return WuerstchenPrior(c=64, c_cond=32, c_r=64, depth=2, nhead=1, dropout=0.0).eval()


def adapted(network: Any, config: Any) -> Any:
    """The network with an adapter of random weights."""
    generator = torch.Generator().manual_seed(9)
    made = peft.inject_adapter_in_model(config, network)
    with torch.no_grad():
        for name, value in made.named_parameters():
            if "lora_" in name or "hada_" in name or "lokr_" in name:
                value.add_(0.2 * torch.randn(value.shape, generator=generator))
    return made.eval()


def outputs(path: Path, state: dict[str, torch.Tensor]) -> torch.Tensor:
    """What our network gives with the file."""
    lora = read_lora(path)
    found = match(lora, state)
    assert len(found.modules) == len(lora.modules) > 0
    changed = Changed(state, found.changes(1.0))
    network = network_of(STAGE_C, Weights(CONFIG, changed), "float32", torch.device("cpu"))
    x, text, t = inputs()
    return torch.cat(network.heads(x, t, network.prepare(text)), dim=1)


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 16, 6, 3, generator=generator)
    return x, torch.randn(2, 7, 32, generator=generator), torch.tensor([0.9, 0.3])


def expected_of(network: Any) -> torch.Tensor:
    """The reference's two heads, before they are divided."""
    x, text, t = inputs()
    seen: list[torch.Tensor] = []
    hook = network.out.register_forward_hook(lambda module, given, made: seen.append(made))
    with torch.no_grad():
        network(x, t, text)
    hook.remove()
    return seen[0]


@pytest.mark.parametrize("alpha", [4, 10])
@pytest.mark.parametrize("dora", [False, True])
def test_the_research_scripts_files(reference, alpha: int, dora: bool, tmp_path: Path) -> None:
    """`save_lora_weights` of the pipeline; an alpha that is not the rank lies in the metadata."""
    state = {name: value.clone() for name, value in reference.state_dict().items()}
    config = peft.LoraConfig(r=4, lora_alpha=alpha, target_modules=TARGETS, use_dora=dora)
    made = adapted(reference, config)
    WuerstchenPriorPipeline.save_lora_weights(
        tmp_path,
        unet_lora_layers=peft.get_peft_model_state_dict(made),
        unet_lora_adapter_metadata=config.to_dict() if alpha != 4 else None,
    )
    path = tmp_path / "pytorch_lora_weights.safetensors"
    found, expected = outputs(path, state), expected_of(made)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    plain = WuerstchenPrior(c=64, c_cond=32, c_r=64, depth=2, nhead=1, dropout=0.0).eval()
    plain.load_state_dict(state)
    assert not torch.allclose(found, expected_of(plain), atol=1e-2)


@pytest.mark.parametrize("kind", ["Lora", "RsLora", "LoHa", "LoKr"])
def test_pefts_own_folders(reference, kind: str, tmp_path: Path) -> None:
    """adapter_model.safetensors, whose alpha is told by adapter_config.json beside it."""
    state = {name: value.clone() for name, value in reference.state_dict().items()}
    common = {"r": 4, "target_modules": LINEARS}
    config = {
        "Lora": lambda: peft.LoraConfig(lora_alpha=6, **common),
        "RsLora": lambda: peft.LoraConfig(lora_alpha=3, use_rslora=True, **common),
        "LoHa": lambda: peft.LoHaConfig(alpha=6, **common),
        "LoKr": lambda: peft.LoKrConfig(alpha=6, **common),
    }[kind]()
    model = peft.get_peft_model(reference, config)
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if any(part in name for part in ("lora_", "hada_", "lokr_")):
                value.add_(0.2 * torch.randn(value.shape, generator=generator))
    model.save_pretrained(tmp_path)
    expected = expected_of(model.base_model.model.eval())
    found = outputs(tmp_path / "adapter_model.safetensors", state)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
