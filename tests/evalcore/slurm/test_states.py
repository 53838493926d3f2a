"""What a job's own result and Slurm's words come to; tests/e2e/test_slurm.py has both from a real Slurm."""

from __future__ import annotations

from typing import Any

import pytest

from evalcore.jobs import State
from evalcore.slurm.states import UNKNOWN, decide

DONE = {"exit_code": 0, "signal": None, "terminated": False}
FAILED = {"exit_code": 3, "signal": None, "terminated": False}
KILLED = {"exit_code": None, "signal": 9, "terminated": False}
STOPPED = {"exit_code": 143, "signal": None, "terminated": True}


def facts(said: str | None, result: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """said: ``STATE`` or ``STATE exit:signal``; None: Slurm does not know the job."""
    state, _, code = (said or "").rpartition(" ") if said and ":" in said else (said or "", "", "0:0")
    states = (
        {} if said is None else {"7": {"state": state, "exit": code, "reason": "Priority", "queued": False}}
    )
    return {
        "id": "7",
        "states": states,
        "result": result,
        "is_queue_known": True,
        "cancelled": False,
        "lost": False,
        "command": {},
    } | more


@pytest.mark.parametrize(
    ("said", "result", "state", "words"),
    [
        # The job's own word comes first.
        ("RUNNING", DONE, State.SUCCEEDED, "succeeded"),
        (None, DONE, State.SUCCEEDED, "succeeded"),
        ("FAILED 0:0", DONE, State.SUCCEEDED, "succeeded"),
        ("NODE_FAIL", DONE, State.SUCCEEDED, "succeeded"),
        ("COMPLETED", FAILED, State.FAILED, "failed with exit code 3"),
        ("COMPLETED", KILLED, State.KILLED, "killed by SIGKILL"),
        (None, KILLED, State.KILLED, "killed by SIGKILL"),
        # Why, Slurm says when it is over.
        ("RUNNING", KILLED, State.RUNNING, "RUNNING"),
        ("COMPLETING", KILLED, State.RUNNING, "COMPLETING"),
        ("OUT_OF_MEMORY 0:125", KILLED, State.FAILED, "OUT_OF_MEMORY"),
        # Told to stop: Slurm knows why, once it is over.
        ("COMPLETING", STOPPED, State.RUNNING, "COMPLETING"),
        ("TIMEOUT", STOPPED, State.LOST, "TIMEOUT"),
        ("PREEMPTED", STOPPED, State.LOST, "PREEMPTED"),
        ("FAILED 143:0", STOPPED, State.LOST, "its time was nearly up"),
        ("COMPLETED", STOPPED, State.LOST, "its time was nearly up"),
        ("CANCELLED by 1001", STOPPED, State.FAILED, "CANCELLED by 1001, not by us"),
        # No word of its own.
        ("PENDING", None, State.RUNNING, "PENDING (Priority)"),
        ("RUNNING", None, State.RUNNING, "RUNNING"),
        ("TIMEOUT", None, State.LOST, "TIMEOUT"),
        ("NODE_FAIL", None, State.LOST, "NODE_FAIL"),
        ("BOOT_FAIL", None, State.LOST, "BOOT_FAIL"),
        ("REVOKED", None, State.LOST, "REVOKED"),
        ("DEADLINE", None, State.FAILED, "DEADLINE"),
        ("CANCELLED by 0", None, State.FAILED, "CANCELLED by 0, not by us"),
        ("OUT_OF_MEMORY 0:125", None, State.FAILED, "OUT_OF_MEMORY"),
        ("FAILED 127:0", None, State.FAILED, "exit code 127"),
        ("FAILED 0:9", None, State.KILLED, "killed by SIGKILL"),
        ("FAILED 0:40", None, State.KILLED, "killed by signal 40"),
        ("FAILED 0:53", None, State.FAILED, "is remote_job_dir shared with the nodes?"),
        # Nobody can tell, yet.
        ("FAILED 0:0", None, State.RUNNING, UNKNOWN),
        ("COMPLETED", None, State.RUNNING, UNKNOWN),
        (None, None, State.RUNNING, UNKNOWN),
        (None, STOPPED, State.RUNNING, UNKNOWN),
    ],
)
def test_where_a_job_stands(
    said: str | None, result: dict[str, Any] | None, state: State, words: str
) -> None:
    found = decide(facts(said, result))
    assert found.state is state
    assert words in str(found)


@pytest.mark.parametrize(
    "said",
    # JOB STATE CODES of squeue(1): what may go on for longer than a job may be unknown.
    [
        *(
            "CONFIGURING",
            "COMPLETING",
            "REQUEUED",
            "REQUEUE_FED",
            "REQUEUE_HOLD",
            "RESIZING",
            "RESV_DEL_HOLD",
        ),
        *("SIGNALING", "SPECIAL_EXIT", "STAGE_OUT", "STOPPED", "SUSPENDED"),
    ],
)
def test_what_the_queue_has_is_not_unknown(said: str) -> None:
    assert str(decide(facts(said))) == f"running ({said})"


@pytest.mark.parametrize("said", ["CANCELLED by 1001", None])
def test_what_we_cancelled_is_cancelled_by_us(said: str | None) -> None:
    assert decide(facts(said, cancelled=True)).state is State.CANCELLED
    assert decide(facts("RUNNING", cancelled=True)).state is State.RUNNING
    queued = {"7": {"state": "NEW_IN_SLURM_99", "exit": "", "queued": True}}
    assert decide(facts(None, states=queued, cancelled=True)).state is State.RUNNING
    assert decide(facts("COMPLETED", DONE, cancelled=True)).state is State.SUCCEEDED


def test_what_we_cancelled_is_not_gone_because_nobody_could_be_asked() -> None:
    found = decide(facts(None, cancelled=True, is_queue_known=False))
    assert (found.state, found.detail) == (State.RUNNING, f"{UNKNOWN} (not listed)")
    assert decide(facts("COMPLETED", cancelled=True, is_queue_known=False)).state is State.CANCELLED


def test_a_job_that_was_given_up_is_lost_unless_it_says_otherwise() -> None:
    assert decide(facts(None, lost=True)).state is State.LOST
    assert decide(facts(None, DONE, lost=True)).state is State.SUCCEEDED


def array(states: dict[str, str], results: dict[str, Any], **more: Any) -> dict[str, Any]:
    listed = {key: {"state": state, "exit": "0:0", "queued": False} for key, state in states.items()}
    tasks = {"tasks": [0, 1, 2]}
    return facts(None, **{"states": listed, "results": results, "command": tasks, **more})


def test_an_array_is_over_when_all_its_tasks_are() -> None:
    running = decide(array({"7_0": "COMPLETED", "7_1": "RUNNING", "7_2": "PENDING"}, {"0": DONE}))
    assert (running.state, running.detail) == (State.RUNNING, "1 of 3 tasks are over")
    done = array(dict.fromkeys(["7_0", "7_1", "7_2"], "COMPLETED"), {"0": DONE, "1": DONE, "2": DONE})
    assert decide(done).state is State.SUCCEEDED


def test_one_failed_task_fails_an_array_and_is_named() -> None:
    states = {"7_0": "COMPLETED", "7_1": "FAILED", "7_2": "TIMEOUT"}
    found = decide(array(states, {"0": DONE, "1": FAILED}))
    assert found.state is State.FAILED
    assert found.detail == "1 of 3 tasks: task 1: failed with exit code 3"


def test_stopped_tasks_of_an_array_go_on() -> None:
    states = {"7_0": "COMPLETED", "7_1": "PREEMPTED", "7_2": "TIMEOUT"}
    found = decide(array(states, {"0": DONE}))
    assert (found.state, found.detail) == (State.LOST, "task 1: lost (PREEMPTED); task 2: lost (TIMEOUT)")


def test_pending_tasks_that_are_cancelled_share_an_entry() -> None:
    states = {"7_0": "COMPLETED", "7_[1-2]": "CANCELLED by 0"}
    assert decide(array(states, {"0": DONE}, cancelled=True)).state is State.CANCELLED
    assert "CANCELLED by 0" in decide(array(states, {"0": DONE})).detail
    # Accounting without the list has them under the number of the whole.
    whole = array({"7_0": "COMPLETED", "7": "CANCELLED by 0"}, {"0": DONE})
    assert decide(whole).detail.startswith("2 of 3 tasks: task 1: failed (CANCELLED by 0")


def test_an_array_is_unknown_if_all_that_runs_of_it_is() -> None:
    states = {"7_0": "COMPLETED", "7_1": "RUNNING"}
    assert not decide(array(states, {"0": DONE})).detail.startswith(UNKNOWN)
    found = decide(array({"7_0": "COMPLETED"}, {"0": DONE}))
    assert (found.state, found.detail) == (State.RUNNING, f"{UNKNOWN}; 1 of 3 tasks are over")


def test_an_array_is_cancelled_only_if_nothing_else_stopped_a_task() -> None:
    states = {"7_0": "COMPLETED", "7_1": "CANCELLED by 0", "7_2": "TIMEOUT"}
    assert decide(array(states, {"0": DONE}, cancelled=True)).state is State.LOST


def test_a_killed_task_does_not_fail_an_array() -> None:
    states = {"7_0": "COMPLETED", "7_1": "FAILED", "7_2": "COMPLETED"}
    found = decide(array(states, {"0": DONE, "1": KILLED, "2": DONE}))
    assert (found.state, found.detail) == (State.LOST, "task 1: killed by SIGKILL")


def test_of_many_tasks_that_failed_five_are_named() -> None:
    tasks = {str(task): FAILED for task in range(8)}
    failed = facts(None, states={}, results=tasks, command={"tasks": list(range(8))})
    found = decide(failed)
    assert found.detail.startswith("8 of 8 tasks: task 0: ")
    assert found.detail.count("; ") == 4
