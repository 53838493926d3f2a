"""SlurmSubmitOperator beside a Slurm that is a few shell scripts; tests/e2e/test_slurm.py has the real one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred

from operators.job import JobFailed
from operators.slurm import XCOM_SLURM, SlurmSubmitOperator
from task_instance import TaskInstance
from waiting import until

# They start processes, and wait for them.
pytestmark = pytest.mark.slow

# sbatch runs the script at once; the queue knows what runs, accounting what has ended.
SBATCH = """#!/bin/bash
[ -z "$GREETS" ] || echo "Welcome to node 7; no maintenance is planned"
printf '%s\\n' "$@" > "$FAKE/arguments"
number=$(($(ls "$FAKE" | grep -c '^[0-9]*$') + 4711))
cp "${@: -1}" "$FAKE/$number"
SLURM_JOB_ID=$number setsid sh "$FAKE/$number" > "$(sed -n 's/^#SBATCH --output=//p' "$FAKE/$number")" 2>&1 &
echo $number
"""
SQUEUE = "#!/bin/sh\n"
SACCT = '#!/bin/sh\nfor f in "$FAKE"/[0-9]*; do echo "${f##*/}|COMPLETED|0:0|node1"; done\n'


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A profile ``here`` whose Slurm is in PATH; yields the folder of its jobs' scripts."""
    commands, fake = tmp_path / "bin", tmp_path / "fake"
    commands.mkdir()
    fake.mkdir()
    for name, text in (("sbatch", SBATCH), ("squeue", SQUEUE), ("sacct", SACCT), ("scancel", "#!/bin/sh\n")):
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(commands), prepend=":")
    monkeypatch.setenv("FAKE", str(fake))
    env = tmp_path / "env.toml"
    env.write_text(f'[here]\nexecutor = "slurm"\ntunnel = "local"\nremote_job_dir = "{tmp_path}/jobs"\n')
    monkeypatch.setenv("EVALCORE_ENV_TOML", str(env))
    return fake


def finished(task: SlurmSubmitOperator, context: Any) -> Any:
    with pytest.raises(TaskDeferred) as stop:
        task.execute(context)
    job = stop.value.trigger.job
    until(lambda: task._backend().look({job: 0})[job].status.state.is_over, "the job")
    return task.resume(context, {"job": job})


def test_a_script_runs_with_its_resources_and_says_how_it_ended(cluster: Path) -> None:
    context = {"ti": TaskInstance()}
    task = SlurmSubmitOperator(
        task_id="train",
        cluster="here",
        script="echo $GREETING",
        env={"GREETING": "hello"},
        options={"nodes": 2, "time": "12:00:00", "extra_sbatch": ["--comment=mine"]},
        dependency="afterok:4",
        returns="done",
    )
    assert finished(task, context) == "done"
    assert context["ti"].xcoms[XCOM_SLURM] == {"id": "4711", "state": "succeeded", "exit_code": 0}
    header = (cluster / "4711").read_text()
    for line in ("--nodes=2", "--time=12:00:00", "--comment=mine", "--dependency=afterok:4", "--no-requeue"):
        assert f"#SBATCH {line}\n" in header
    assert "hello" not in header


def test_what_a_profile_says_goes_before_what_a_users_shell_says(cluster: Path) -> None:
    """SBATCH_PARTITION goes before the script's own header, and an argument before that."""
    task = SlurmSubmitOperator(task_id="train", cluster="here", script="true", options={"partition": "batch"})
    finished(task, {"ti": TaskInstance()})
    arguments = (cluster / "arguments").read_text().splitlines()
    header = [line for line in (cluster / "4711").read_text().splitlines() if line.startswith("#SBATCH ")]
    assert "--partition=batch" in arguments
    assert arguments[1:-1] == [line.removeprefix("#SBATCH ") for line in header]


def test_an_sbatch_that_greets_its_users(cluster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREETS", "1")
    context = {"ti": TaskInstance()}
    finished(SlurmSubmitOperator(task_id="train", cluster="here", script="true"), context)
    assert context["ti"].xcoms[XCOM_SLURM]["id"] == "4711"


def test_a_command_is_run_as_it_is_with_a_tasks_own_variables(
    cluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "of the worker")
    task = SlurmSubmitOperator(
        task_id="train",
        cluster="here",
        command=["printenv", "HF_TOKEN", "a  b;c"],
        env={"HF_TOKEN": "of the task", "a  b;c": "as it is"},
    )
    with pytest.raises(TaskDeferred) as stop:
        task.execute({"ti": TaskInstance()})  # type: ignore[typeddict-item]
    job = stop.value.trigger.job
    until(lambda: task._backend().look({job: 0})[job].status.state.is_over, "the job")
    assert task._backend().look({job: 0})[job].log == ["of the task", "as it is"]


def test_what_may_be_templated() -> None:
    task = SlurmSubmitOperator(
        task_id="train",
        cluster="{{ params.c }}",
        script="echo {{ params.c }}",
        options={"time": "{{ params.c }}"},
        dependency="afterok:{{ params.c }}",
        env={"A": "{{ params.c }}"},
        array=["{{ params.c }}"],  # type: ignore[list-item]
    )
    task.render_template_fields({"params": {"c": "7"}})  # type: ignore[typeddict-item]
    assert (task.cluster, task.argv[-1], task.options) == ("7", "echo 7", {"time": "7"})
    assert (task.dependency, task.env, task.array) == ("afterok:7", {"A": "7"}, ["7"])


def test_a_script_that_fails_half_way_fails_the_task(cluster: Path) -> None:
    context = {"ti": TaskInstance()}
    task = SlurmSubmitOperator(task_id="train", cluster="here", script="printf 'no GPU'\nfalse\necho never")
    with pytest.raises(JobFailed, match="train: failed with exit code 1: no GPU "):
        finished(task, context)
    assert context["ti"].xcoms[XCOM_SLURM]["exit_code"] == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"options": {"nods": 2}}, "cluster here: nods: Extra inputs are not permitted"),
        ({"options": {"time": "soon"}}, "is no time limit"),
        (
            {"options": {"extra_sbatch": ["--array=1-4"]}},
            "cluster here: extra_sbatch.0: --array cannot be set here; use the argument array of SlurmSubmitOperator",
        ),
        ({"dependency": "afterok:1 --wrap=x"}, "extra_sbatch"),
        ({"array": 0}, "at least one task"),
        ({"env": {"SEED": None}}, "SEED has no value"),
        ({"array": "1-4"}, "array: expected a number of tasks, or their numbers, and not '1-4'"),
        ({"cluster": "local"}, "profile local: its executor is not slurm"),
        ({"cluster": "nowhere"}, "unknown profile 'nowhere'"),
    ],
)
def test_what_cannot_be_submitted_fails_at_once(cluster: Path, options: dict[str, Any], said: str) -> None:
    task = SlurmSubmitOperator(task_id="train", **{"cluster": "here", "command": ["true"], **options})
    with pytest.raises(AirflowFailException, match=said):
        task.execute({"ti": TaskInstance()})  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    ("array", "said"), [(3, "0,1,2"), ("12", "0,1,2,3,4,5,6,7,8,9,10,11"), ([2, 5], "2,5"), ((), "")]
)
def test_an_array_is_a_number_of_tasks_which_may_come_from_a_template_or_their_numbers(
    cluster: Path, array: Any, said: str
) -> None:
    task = SlurmSubmitOperator(task_id="train", cluster="here", command=["true"], array=array)
    with pytest.raises(TaskDeferred):
        task.execute({"ti": TaskInstance()})  # type: ignore[typeddict-item]
    header = (cluster / "4711").read_text().splitlines()
    assert [line for line in header if "--array" in line] == ([f"#SBATCH --array={said}"] if said else [])


def test_an_env_toml_over_there_has_no_say(cluster: Path, tmp_path: Path) -> None:
    # The job inherits this process's, which names the profile `here`.
    task = SlurmSubmitOperator(
        task_id="list", cluster="here", command=["evalcore", "profiles"], options={"python": sys.executable}
    )
    finished(task, {"ti": TaskInstance()})
    [log] = tmp_path.glob("jobs/jobs/*/1/log.txt")
    assert [line.split()[0] for line in log.read_text().splitlines()] == ["NAME", "local"]


def test_numbers_and_paths_are_words(cluster: Path) -> None:
    context = {"ti": TaskInstance()}
    command: list[Any] = ["sh", "-c", "exit $(($0 + $SEED))", 3]
    task = SlurmSubmitOperator(task_id="train", cluster="here", command=command, env={"SEED": 4})  # type: ignore[dict-item]
    with pytest.raises(JobFailed, match="exit code 7"):
        finished(task, context)


def test_a_script_does_not_run_what_a_user_has_for_terminals(
    cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under sshd, Debian's ``bash -c`` reads /etc/bash.bashrc and .bashrc, and with -u both stumble over PS1."""
    (tmp_path / ".bashrc").write_text('echo "$PS1"\n')
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SSH_CLIENT", "192.0.2.1 4711 22")
    monkeypatch.setenv("SHLVL", "0")
    task = SlurmSubmitOperator(task_id="train", cluster="here", script="echo done")
    finished(task, {"ti": TaskInstance()})
    [log] = tmp_path.glob("jobs/jobs/*/1/log.txt")
    assert log.read_text() == "done\n"


@pytest.mark.parametrize("options", [{}, {"command": ["true"], "script": "true"}, {"command": "sleep 5"}])
def test_a_command_or_a_script(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"a command or a script|list of words"):
        SlurmSubmitOperator(task_id="train", cluster="here", **options)
