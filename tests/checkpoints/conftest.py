from pathlib import Path

import pytest

from .tiny import write_published


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny weights in the published layout. Read only: tests that change files copy it."""
    folder = tmp_path_factory.mktemp("published")
    write_published(folder, tmp_path_factory.mktemp("tokenizer"))
    return folder
