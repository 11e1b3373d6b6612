from pathlib import Path

import pytest

from .tiny import write_published


@pytest.fixture(scope="session")
def published_v1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with a tiny Würstchen v1 as `wuerstchen-v1`."""
    models = tmp_path_factory.mktemp("models")
    write_published(models / "wuerstchen-v1", tmp_path_factory.mktemp("tokenizer"))
    return models / "wuerstchen-v1"
