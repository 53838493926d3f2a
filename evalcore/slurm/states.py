"""What Slurm says of a job and what the job says of itself, taken together.

>>> decide({"id": "7", "states": {"7": {"state": "TIMEOUT", "exit": "0:0", "queued": False}}, "result": None, …})
Status(state=<State.LOST: 'lost'>, exit_code=None, signal=None, detail='TIMEOUT')

The result that the job wrote on its node decides before anything that Slurm says, but for a signal: why it was
killed Slurm knows. It decides where there is none, too. What neither knows is not over (``UNKNOWN``): accounting
may be down, or late.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evalcore.jobs import State, Status

UNKNOWN = "unknown to Slurm"
"""Detail of a job that runs as far as anybody knows: neither the queue nor accounting has it."""

# Slurm's words for a job that the cluster stopped, not its command: another attempt can go on.
_STOPPED = frozenset({"TIMEOUT", "PREEMPTED", "NODE_FAIL", "BOOT_FAIL", "REVOKED"})
# What Slurm has in the place of the signal for a job whose output it could not open.
_NO_OUTPUT = "53"
_ACTIVE = frozenset(
    {"PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "REQUEUED", "REQUEUE_HOLD"}
    | {"REQUEUE_FED", "SPECIAL_EXIT", "RESIZING", "SIGNALING", "STAGE_OUT", "RESV_DEL_HOLD"}
)


def decide(facts: Mapping[str, Any]) -> Status:
    """Where a job stands, from what ``agent.look`` found.

    CANCELLED is what we asked for; cancelled by somebody else is FAILED, since he meant it. An array runs while
    one of its tasks does, has failed if one has, and else can go on with those that were stopped.
    """
    tasks = decide_tasks(facts)
    if not tasks:
        return _decide(facts)
    running = [status for status in tasks.values() if not status.state.is_over]
    if running:
        unknown = all(status.detail.startswith(UNKNOWN) for status in running)
        done = f"{len(tasks) - len(running)} of {len(tasks)} tasks are over"
        return Status(State.RUNNING, detail=f"{UNKNOWN}; {done}" if unknown else done)
    rest = {task: status for task, status in tasks.items() if status.state is not State.SUCCEEDED}
    if not rest:
        return Status(State.SUCCEEDED, exit_code=0)
    failed = {task: status for task, status in rest.items() if not status.state.is_resumable}
    listed = "; ".join(f"task {task}: {status}" for task, status in list((failed or rest).items())[:5])
    if failed:
        return Status(State.FAILED, detail=f"{len(failed)} of {len(tasks)} tasks: {listed}")
    cancelled = all(status.state is State.CANCELLED for status in rest.values())
    return Status(State.CANCELLED if cancelled else State.LOST, detail=listed)


def decide_tasks(facts: Mapping[str, Any]) -> dict[int, Status]:
    """Where each task of an array stands; {} for what is none."""
    tasks = facts["command"].get("tasks") or []
    whole = facts["states"].get(facts["id"])
    # Pending ones that are cancelled together share an entry: ``60_[1-3]``.
    shared = next((state for key, state in facts["states"].items() if key.endswith("]")), whole)
    return {
        task: _decide(
            {
                **facts,
                "id": "task",
                "states": {"task": facts["states"].get(f"{facts['id']}_{task}", shared) or {}},
                "result": facts["results"].get(str(task)),
            }
        )
        for task in tasks
    }


def _decide(facts: Mapping[str, Any]) -> Status:
    result, said = facts["result"], facts["states"].get(facts["id"]) or {}
    word, by = ([*str(said.get("state", "")).split(), ""])[0], str(said.get("state", ""))
    if result and result["exit_code"] == 0:
        return Status(State.SUCCEEDED, exit_code=0)
    if word == "OUT_OF_MEMORY":
        return Status(State.FAILED, detail="OUT_OF_MEMORY: it takes more than the memory it asked for")
    if result and not result["terminated"]:
        if not result["signal"]:
            return Status(State.FAILED, exit_code=result["exit_code"])
        # That it was for its memory Slurm says only when the job is over.
        if word not in _ACTIVE:
            return Status(State.KILLED, signal=result["signal"])
    if word in _ACTIVE:
        waits = word == "PENDING" and said.get("reason")
        return Status(State.RUNNING, detail=f"PENDING ({said['reason']})" if waits else word)
    if word == "CANCELLED":
        if facts["cancelled"]:
            return Status(State.CANCELLED)
        return Status(State.FAILED, detail=f"{by}, not by us")
    if word in _STOPPED:
        return Status(State.LOST, detail=word)
    if result and word in ("COMPLETED", "FAILED"):
        # Slurm told it to, and by its exit code it is over before its time: only the job knows why.
        return Status(State.LOST, detail="stopped when its time was nearly up")
    if word == "DEADLINE":
        return Status(State.FAILED, detail=word)
    code, _, signal = str(said.get("exit", "")).partition(":")
    if word == "FAILED" and code not in ("", "0"):
        return Status(State.FAILED, exit_code=int(code))
    if word == "FAILED" and signal == _NO_OUTPUT:
        return Status(
            State.FAILED, detail="its node cannot write its log: is remote_job_dir shared with the nodes?"
        )
    if word == "FAILED" and signal not in ("", "0"):
        return Status(State.KILLED, signal=int(signal))
    # That nobody could be asked for it does not mean that it is gone.
    if facts["cancelled"] and not said.get("queued") and (word or facts["is_queue_known"]):
        return Status(State.CANCELLED)
    if facts["lost"]:
        return Status(State.LOST, detail="Slurm has not known it for too long")
    # Told to stop and stopped, though Slurm has not said why yet; FAILED without any code, which it says for
    # some seconds after accounting was away; COMPLETED, while the result is still on its way here.
    return Status(State.RUNNING, detail=f"{UNKNOWN} ({word or 'not listed'})")
