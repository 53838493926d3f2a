"""What every test stands on: nothing outside the test's own folders is read or written."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest

_FOLDER = tempfile.mkdtemp(prefix="evalcore-tests-")
atexit.register(shutil.rmtree, _FOLDER, ignore_errors=True)

# Before numpy is imported: the tiny model's matrices are too small to share between threads.
os.environ["OPENBLAS_NUM_THREADS"] = "1"
# Prepared benchmarks go to a cache in HOME; tests bring their own.
os.environ["EVALCORE_DATA"] = os.path.join(_FOLDER, "data")
os.environ.pop("EVALCORE_INCLUDE", None)
# Nor is anything recorded in a developer's own history.
os.environ["EVALCORE_HISTORY"] = f"sqlite:///{os.path.join(_FOLDER, 'history.sqlite')}"
# Nor are matplotlib's settings read, or its fonts listed, in HOME.
os.environ["MPLCONFIGDIR"] = os.path.join(_FOLDER, "matplotlib")
# Nor is the env.toml of a developer's checkout read.
os.environ["EVALCORE_ENV_TOML"] = os.devnull
# A developer's own login must not reach a test's run.
for name in ("WANDB_API_KEY", "OPENAI_API_KEY", "HF_TOKEN", "HF_ENDPOINT"):
    os.environ.pop(name, None)
os.environ["WANDB_MODE"] = "offline"
# Tests talk to 127.0.0.1, which no proxy of this shell knows.
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"
# Before anything imports Airflow, which reads these once: a home that nothing is read from.
os.environ["AIRFLOW_HOME"] = os.path.join(_FOLDER, "airflow")
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL"] = "1"
# A shell's background job ignores Ctrl-C and so would all that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Told to end, tests end what they have started, as on Ctrl-C.
signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What one test found out, no other test shall know."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("EVALCORE_CACHE", str(folder))
    return folder
