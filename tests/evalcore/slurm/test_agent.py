"""What the agent makes of Slurm's answers."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from evalcore.backends import Unreachable
from evalcore.slurm import agent
from evalcore.slurm.cluster import Cluster
from evalcore.slurm.shipping import archive
from fake_slurm import FakeSlurm


def submit(folder: Path) -> agent.Json:
    command = {"argv": ["true"], "env": {}}
    return agent.submit(str(folder), "#!/bin/sh\n", "", command, {"KEY": "k"})


def answer(capsys: pytest.CaptureFixture[str], **request: Any) -> Any:
    agent.main(json.dumps(request).encode())
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("refused", "kind", "secrets"),
    [
        ("echo 'sbatch: error: Socket timed out on send/recv operation' >&2; exit 1", "failed", True),
        (
            "echo 'Batch job submission failed: Zero Bytes were transmitted or received' >&2; exit 1",
            "failed",
            True,
        ),
        ("echo 'Slurm backup controller in standby mode' >&2; exit 1", "failed", True),
        ("echo 'sbatch: error: QOSMaxSubmitJobPerUserLimit' >&2; exit 1", "failed", True),
        ("kill -9 $$", "failed", True),
        ("echo 'sbatch: error: Invalid --sockets-per-node' >&2; exit 255", "rejected", False),
        ("echo 'Invalid account or account/partition combination' >&2; exit 1", "rejected", False),
    ],
)
def test_a_refusal_is_final_or_for_now(
    slurm: FakeSlurm, tmp_path: Path, refused: str, kind: str, secrets: bool
) -> None:
    slurm.does("sbatch", refused)
    with pytest.raises(agent.Failure, match="sbatch: ") as failure:
        submit(tmp_path / "eval" / "1")
    assert failure.value.kind == kind
    # What may be in the queue all the same has to find its secrets.
    assert (tmp_path / "eval" / "1" / "secrets.json").exists() is secrets


def test_what_is_cancelled_while_it_is_being_submitted_is_not(slurm: FakeSlurm, tmp_path: Path) -> None:
    folder = tmp_path / "eval" / "1"
    folder.mkdir(parents=True)
    agent.cancel([str(folder)])
    with pytest.raises(agent.Failure, match="cancelled before it was submitted"):
        submit(folder)
    assert not slurm.calls("sbatch")


def test_a_job_that_never_starts_leaves_no_secrets(slurm: FakeSlurm, tmp_path: Path) -> None:
    cancelled, failed = tmp_path / "eval" / "1", tmp_path / "eval" / "2"
    for folder in (cancelled, failed):
        submit(folder)
        assert (folder / "secrets.json").exists()
    agent.cancel([str(cancelled)])
    agent.mark(str(failed), "consumed")
    assert not list(tmp_path.glob("eval/*/secrets*"))


def test_a_job_whose_folder_was_removed_is_found_again_by_its_name(slurm: FakeSlurm, tmp_path: Path) -> None:
    folder = tmp_path / "eval" / "1"
    agent.mark(str(folder), agent.LOST)
    assert agent.look({str(folder): 0})["jobs"][str(folder)]["lost"]
    slurm.says("squeue", "4711\n")
    assert submit(folder) == {"id": "4711", "new": False}


def test_it_is_not_cancelled_while_nobody_knows_whether_it_was_submitted(
    slurm: FakeSlurm, tmp_path: Path
) -> None:
    folder = tmp_path / "eval" / "1"
    submit(folder)
    (folder / "id").unlink()
    slurm.says("squeue", code=1)
    with pytest.raises(agent.Failure, match="squeue"):
        agent.cancel([str(folder)])
    assert (folder / "secrets.json").exists()


def test_a_queue_that_does_not_answer_is_no_empty_one(slurm: FakeSlurm, tmp_path: Path) -> None:
    folder = tmp_path / "eval" / "1"
    submit(folder)
    assert agent.look({str(folder): 0})["jobs"][str(folder)]["is_queue_known"]
    slurm.says("squeue", code=1)
    assert not agent.look({str(folder): 0})["jobs"][str(folder)]["is_queue_known"]


def test_one_torn_result_does_not_hide_the_other_jobs(slurm: FakeSlurm, tmp_path: Path) -> None:
    torn, whole = tmp_path / "eval" / "1", tmp_path / "eval" / "2"
    for folder in (torn, whole):
        submit(folder)
    (torn / "result.json").write_text('{"exit_code": 0, "sig')
    (whole / "result.json").write_text('{"exit_code": 0, "signal": null, "terminated": false}\n')
    found = agent.look({str(torn): 0, str(whole): 0})["jobs"]
    assert found[str(torn)]["result"] is None
    assert found[str(whole)]["result"]["exit_code"] == 0


def test_what_ends_while_it_is_looked_at_is_over_at_the_next_look_with_its_last_words(
    slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "eval" / "1"
    submit(folder)
    log = folder / "log.txt"
    log.write_text("on")
    read = agent._log

    def ends_just_then(*arguments: Any) -> tuple[str, int]:
        found = read(*arguments)
        log.write_text("one\nevalcore: error: two")
        (folder / "result.json").write_text('{"exit_code": 1, "signal": null, "terminated": false}\n')
        return found

    with monkeypatch.context() as patched:
        patched.setattr(agent, "_log", ends_just_then)
        first = agent.look({str(folder): 0})["jobs"][str(folder)]
    assert (first["result"], first["log"], first["offset"]) == (None, "", 0)
    second = agent.look({str(folder): 0})["jobs"][str(folder)]
    assert (second["result"]["exit_code"], second["log"]) == (1, "one\nevalcore: error: two")


@pytest.mark.parametrize(
    ("error", "kind"),
    [(PermissionError(13, "Permission denied"), "rejected"), (OSError(28, "No space left"), "failed")],
)
def test_a_folder_that_will_not_let_us_in_is_not_asked_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: OSError, kind: str
) -> None:
    def makedirs(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(agent.os, "makedirs", makedirs)
    arguments = {"folder": "/lustre/x/1", "script": "", "supervisor": "", "command": {}, "secrets": {}}
    assert answer(capsys, do="submit", **arguments)["kind"] == kind


@pytest.mark.parametrize(("version", "said"), [((3, 9), "ok"), ((3, 6), "error")])
def test_an_old_python_says_so(version: tuple[int, int], said: str) -> None:
    program = f"import sys; sys.version_info = {version}; {agent.BOOT}"
    source = Path(agent.__file__).read_bytes()
    if said == "error":
        source = b"this is no python of that time"
    request = source + b"\0" + json.dumps({"do": "missing", "paths": []}).encode()
    done = subprocess.run([sys.executable, "-c", program], input=request, capture_output=True, check=True)
    found = json.loads(done.stdout)
    assert next(iter(found)) == said
    if said == "error":
        assert found == {"error": "python3 is 3.6, and 3.9 is needed", "kind": "rejected"}


def test_what_a_site_has_removed_in_part_is_sent_again(tmp_path: Path) -> None:
    sent, folder = archive(), tmp_path / "code"
    arguments = (str(folder), sent.digest, sent.data.hex(), [])
    assert agent.unpack(*arguments) == {"new": True}
    assert agent.unpack(*arguments) == {"new": False}
    assert time.time() - (folder / "evalcore" / "cli.py").stat().st_mtime < 60
    (folder / "evalcore" / "cli.py").unlink()
    assert agent.missing([str(folder)]) == {"missing": [str(folder)]}
    assert agent.history(str(tmp_path / "job"), 1, str(folder))["missing"]
    assert agent.unpack(*arguments) == {"new": True}
    assert (folder / "evalcore" / "cli.py").exists()
    assert agent.missing([str(folder)]) == {"missing": []}


def test_an_archive_that_did_not_arrive_as_it_was_is_not_unpacked(cluster: Cluster, tmp_path: Path) -> None:
    sent = archive()
    torn = (sent.data[:-1] + b"x").hex()
    ask = {"digest": sent.digest, "check": []}
    with pytest.raises(Unreachable, match="what arrived is not what was sent"):
        cluster._ask("unpack", folder=str(tmp_path / "code"), archive=torn, **ask)
    assert not list(tmp_path.glob("code*"))
    cluster._ask("unpack", folder=str(tmp_path / "code"), archive=sent.data.hex(), **ask)
    assert (tmp_path / "code" / "evalcore" / "slurm" / "agent.py").is_file()


def test_the_digest_is_that_of_the_file(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    (tmp_path / "grades").mkdir()
    found = cluster._ask("files", folder=str(tmp_path), patterns=["*.json", "grades"])["files"]
    assert found == {"manifest.json": {"size": 2, "sha256": hashlib.sha256(b"{}").hexdigest()}}
