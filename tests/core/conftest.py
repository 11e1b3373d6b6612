"""What tests of compiled and recorded networks share."""

import logging
from collections.abc import Callable, Iterator

import pytest
import torch


@pytest.fixture
def no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What the project itself has warned of until now."""

    def ours() -> list[str]:
        known = [one for one in caplog.records if one.name.startswith("comfyui_wuerstchen.")]
        return [one.getMessage() for one in known if one.levelno >= logging.WARNING]

    return ours
