from __future__ import annotations

from pathlib import Path

import pytest

from evalcore.backends import Local
from evalcore.errors import ConfigError
from evalcore.slurm.cluster import Cluster
from evalcore.slurm.shell import Here
from hooks.backends import backend, environment
from hooks.slurm import SshShell

PROFILES = """
[here]
executor = "slurm"
tunnel = "local"
remote_job_dir = "/lustre/me"

[there]
extends = "here"
tunnel = "ssh"
host = "login"

[there.env]
PLAIN = "seen"
HF_TOKEN = "${oc.env:HF_TOKEN}"
OTHER_KEY = "${oc.env:MINE}"

[own]
env = {PLAIN = "seen", OTHER_KEY = "${oc.env:MINE}"}
"""


@pytest.fixture(autouse=True)
def profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "env.toml").write_text(PROFILES)
    monkeypatch.setenv("EVALCORE_ENV_TOML", str(tmp_path / "env.toml"))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_API_KEY", "OPENAI_API_KEY", "HF_TOKEN", "MINE", "NETRC"):
        monkeypatch.delenv(name, raising=False)


def test_a_profile_says_where_jobs_run() -> None:
    local = backend("local", "/results/.jobs")
    assert isinstance(local, Local)
    assert local.folder("eval") == "/results/.jobs/eval"
    here, there = backend("here", ""), backend("there", "")
    assert isinstance(here, Cluster)
    assert isinstance(here.shell, Here)
    assert isinstance(there, Cluster)
    assert isinstance(there.shell, SshShell)
    assert there.folder("eval") == "/lustre/me/jobs/eval"
    with pytest.raises(ConfigError, match="unknown profile 'nowhere'"):
        backend("nowhere", "")


def test_a_cluster_gets_keys_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("WANDB_API_KEY", "w"), ("HF_TOKEN", "h"), ("MINE", "m"), ("UNRELATED", "u")):
        monkeypatch.setenv(name, value)
    assert environment("there") == {"WANDB_API_KEY": "w", "HF_TOKEN": "h", "OTHER_KEY": "m"}
    assert environment("here") == {"WANDB_API_KEY": "w", "HF_TOKEN": "h"}
    assert environment("local")["UNRELATED"] == "u"
    assert environment("own")["UNRELATED"] == "u"
    assert (environment("own")["PLAIN"], environment("own")["OTHER_KEY"]) == ("seen", "m")


def test_who_is_logged_in_at_wandb_need_not_export_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("machine api.wandb.ai\n  login user\n  password from-login\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert environment("here") == {"WANDB_API_KEY": "from-login"}
    monkeypatch.setenv("WANDB_API_KEY", "exported")
    assert environment("here") == {"WANDB_API_KEY": "exported"}
    monkeypatch.delenv("WANDB_API_KEY")
    (tmp_path / ".netrc").write_text("default\n  login me\n  password of-another-host\n")
    assert environment("here") == {}
