from __future__ import annotations

import os
from pathlib import Path

# As the server does for itself, and as early: before numpy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest
from random_llama import write_llama


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama; its answers are noise, which is all that most tests need."""
    return write_llama(tmp_path_factory.mktemp("models") / "random-llama")
