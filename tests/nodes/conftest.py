"""What tests of the nodes share."""

from typing import Any

import pytest

from comfyui_wuerstchen.nodes import NODE_CLASS_MAPPINGS
from comfyui_wuerstchen.nodes.parts import Part

from .demo import call


@pytest.fixture(scope="module")
def parts() -> dict[str, Part[Any]]:
    node = NODE_CLASS_MAPPINGS["WuerstchenLoadPipeline"]
    loaded = call("WuerstchenLoadPipeline", folder="wuerstchen-demo", dtype="float32")
    return dict(zip(node.RETURN_NAMES, loaded, strict=True))
