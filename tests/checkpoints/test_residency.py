"""Names of dtypes mean what is best and safe on a device."""

import pytest
import torch

from comfyui_wuerstchen.wuerstchen_core.errors import SettingError
from comfyui_wuerstchen.wuerstchen_core.residency import DTYPES, pick_device, pick_dtype

CPU = torch.device("cpu")


def test_cpu() -> None:
    assert pick_dtype("auto", CPU) in (torch.float32, torch.bfloat16)
    assert pick_dtype("float32", CPU) == torch.float32
    assert pick_dtype("bfloat16", CPU) == torch.bfloat16
    with pytest.raises(SettingError, match="float16"):
        pick_dtype("float16", CPU)


@pytest.mark.parametrize("native", [True, False])
def test_auto_on_the_cpu_follows_the_processor(
    native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for query in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, query, lambda: native, raising=False)
    assert pick_dtype("auto", CPU) == (torch.bfloat16 if native else torch.float32)


@pytest.mark.parametrize(
    ("capability", "expected"), [((7, 5), torch.float32), ((8, 0), torch.bfloat16)]
)
def test_auto_on_cuda_follows_its_generation(
    capability: tuple[int, int], expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert pick_dtype("auto", torch.device("cuda")) == expected


def test_unknown_name_lists_the_known() -> None:
    with pytest.raises(SettingError, match=", ".join(DTYPES)):
        pick_dtype("fp8", CPU)


def test_device_can_compute() -> None:
    device = pick_device()
    assert (torch.ones(1, device=device) + 1).item() == 2
