from __future__ import annotations

from pathlib import Path

import pytest

from random_llama import write_llama


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama; its answers are noise, which is all that most tests need."""
    return write_llama(tmp_path_factory.mktemp("models") / "random-llama")
