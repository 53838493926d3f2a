from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from pydantic import ValidationError

from distributed_checkpoint import write_converter
from evalcore import __version__
from evalcore.errors import ConfigError
from evalcore.profiles import SlurmProfile
from evalcore.slurm import shipping
from evalcore.slurm.script import in_container, render


def profile(**keys: object) -> SlurmProfile:
    return SlurmProfile.model_validate(
        {"name": "c", "executor": "slurm", "remote_job_dir": "/lustre/me", **keys}
    )


def header(text: str) -> dict[str, str | None]:
    lines = [line.removeprefix("#SBATCH --") for line in text.splitlines() if line.startswith("#SBATCH")]
    return {name: value or None for name, _, value in (line.partition("=") for line in lines)}


def test_the_header_says_what_the_profile_says() -> None:
    asked = profile(
        account="acc", partition="batch", qos="high", time="1-12:00:00", nodes=2, gpus_per_node=8, mem="0",
        cpus_per_task=16, gres="lic:1", constraint="h100", exclusive=True, extra_sbatch=["--comment=x"],
    )  # fmt: skip
    found = header(render(asked, "eval.1", "/lustre/me/jobs/eval/1"))
    expected = {
        "job-name": "eval.1", "output": "/lustre/me/jobs/eval/1/log.txt", "open-mode": "append",
        "no-requeue": None, "signal": "B:TERM@120", "account": "acc", "partition": "batch", "qos": "high",
        "time": "1-12:00:00", "nodes": "2", "gpus-per-node": "8", "cpus-per-task": "16", "mem": "0",
        "gres": "lic:1", "constraint": "h100", "exclusive": None, "comment": "x",
    }  # fmt: skip
    assert found == expected


def test_what_the_header_sets_nobody_else_can() -> None:
    resources = {
        "account": "a", "partition": "p", "qos": "q", "nodes": 2, "gpus_per_node": 8, "cpus_per_task": 1, "mem": "0",
        "gres": "gpu:1", "constraint": "h100",
    }  # fmt: skip
    options = header(render(profile(**resources), "eval.1", "/f", tasks=[1, 2]))
    assert len(options) == 6 + 1 + len(resources)
    for option in options:
        with pytest.raises(ValidationError, match=f"--{option} cannot be set"):
            profile(extra_sbatch=[f"--{option}=x"])


def test_the_script_is_a_header_and_one_command() -> None:
    first, *rest, last = render(profile(), "eval.1", "/lustre/me/jobs/eval/1").splitlines()
    assert first == "#!/bin/sh"
    assert all(line.startswith("#SBATCH --") for line in rest)
    folder = "/lustre/me/jobs/eval/1"
    assert last == f"exec python3 {folder}/supervise.py {folder}"


def test_what_is_not_asked_for_is_left_to_the_cluster() -> None:
    found = header(render(profile(), "eval.1", "/f"))
    assert not {"account", "partition", "qos", "gpus-per-node", "mem", "gres", "exclusive"} & found.keys()


def test_each_task_of_an_array_has_its_own_log() -> None:
    found = header(render(profile(), "eval.1", "/f", tasks=[0, 3]))
    assert (found["array"], found["output"]) == ("0,3", "/f/log-%a.txt")
    assert "array" not in header(render(profile(), "eval.1", "/f"))


def test_what_pyxis_is_told() -> None:
    asked = profile(mounts=["/data:/data:ro"], results="/scratch/results")
    command = in_container(
        asked, ["evalcore", "--version"], "/images/e.sqsh", {"PYTHONPATH": "/code", "A": "1 2"}
    )
    assert command == [
        "srun", "--nodes=1", "--ntasks=1", "--cpu-bind=none", "--export=ALL",
        "--container-image=/images/e.sqsh",
        "--container-mounts=/data:/data:ro,/lustre/me:/lustre/me,/scratch/results:/scratch/results",
        "--no-container-remap-root", "--no-container-mount-home",
        "env", "PYTHONPATH=/code", "A=1 2", "evalcore", "--version",
    ]  # fmt: skip
    # Results that lie in the folder of jobs are mounted with it.
    assert "--container-mounts=/lustre/me:/lustre/me" in in_container(profile(), ["true"], "/i.sqsh", {})


def test_evalcore_is_packed_without_times_and_with_everybodys_includes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipping.archive.cache_clear()
    plain = shipping.archive()
    own = tmp_path / "benchmarks"
    own.mkdir()
    (own / "mine.yaml").write_text("name: mine\n")
    (own / "tiny-arithmetic.yaml").write_text("name: another\n")
    (own / ".mine.yaml.swp").write_text("an editor's\n")
    write_converter(tmp_path, "mine", "")
    monkeypatch.setenv("EVALCORE_INCLUDE", str(tmp_path))
    shipping.archive.cache_clear()
    packed = shipping.archive()
    assert packed.digest != plain.digest
    shipping.archive.cache_clear()
    assert shipping.archive() == packed, "the same files, the same digest"
    shipping.archive.cache_clear()
    assert packed.data[4:8] == bytes(4), "gzip's time"
    with tarfile.open(fileobj=io.BytesIO(packed.data)) as tar:
        names = set(tar.getnames())
        assert {(info.mtime, info.uid, info.mode) for info in tar} == {(0, 0, 0o644)}
        first = tar.extractfile("include/benchmarks/tiny-arithmetic.yaml")
        assert first is not None
        assert first.read() == b"name: another\n", "whoever has one of his own gets that"
        init = tar.extractfile("evalcore/__init__.py")
        assert init is not None
        assert __version__ in init.read().decode()
    assert {"evalcore/cli.py", "include/benchmarks/mine.yaml", "include/suites/tiny.yaml"} <= names
    assert {"evalcore/dcp.py", "include/converters/mine.yaml", "include/converters/dcp.yaml"} <= names
    assert not [name for name in names if "__pycache__" in name or name.endswith(".swp")]


def test_data_sets_in_include_folders_are_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipping, "_MEGABYTES", 0)
    shipping.archive.cache_clear()
    with pytest.raises(ConfigError, match="more than 0"):
        shipping.archive()


@pytest.mark.parametrize(("time", "seconds"), [("4:00:00", 120), ("8", 120), ("4", 60), ("1", 15)])
def test_a_short_job_is_not_told_to_stop_at_its_start(time: str, seconds: int) -> None:
    assert header(render(profile(time=time), "eval.1", "/f"))["signal"] == f"B:TERM@{seconds}"
