"""The resize as matrix products equals torch's own."""

import pytest
import torch
from torch.nn import functional as F

from comfyui_wuerstchen.wuerstchen_core.resize import resize_bicubic


@pytest.mark.parametrize("new", [(4, 4), (6, 6), (16, 24), (64, 48), (1, 1), (7, 3)])
@pytest.mark.parametrize("old", [(6, 6), (24, 18), (3, 36)])
def test_equals_interpolate(old: tuple[int, int], new: tuple[int, int]) -> None:
    x = torch.randn(2, 16, *old)
    expected = F.interpolate(x, size=new, mode="bicubic", antialias=True, align_corners=True)
    torch.testing.assert_close(resize_bicubic(x, new), expected, rtol=1e-5, atol=1e-5)


def test_works_where_torch_has_no_kernel() -> None:
    x = torch.randn(1, 16, 6, 6)
    half = resize_bicubic(x.bfloat16(), (16, 16))
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), resize_bicubic(x, (16, 16)), rtol=0.05, atol=0.05)
