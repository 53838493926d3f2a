"""A history in which a checkpoint got worse, and alarms of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evalcore.checkpoints import Checkpoint
from evalcore.history.alarms import Alarm, Alarms, Kind, State, Suspicion
from evalcore.history.store import History
from evaluations import record

GOOD, BAD = [4, 3, 4, 2] * 10, [4, 1, 2, 2] * 10
MARGIN, ALPHA = 0.01, 0.03


def evaluated(
    history: History,
    folder: Path,
    step: int | None,
    right: Sequence[int] = GOOD,
    *,
    run: str = "llama",
    name: str = "toy",
    **changed: Any,
) -> int:
    """The id of an evaluation; ``changed`` as ``evaluations.record`` has it."""
    called = "final" if step is None else f"step-{step}"
    of = Checkpoint(path=f"/ckpt/{called}", run=run, name=called, step=step, digest=f"{run}-{step}")
    return record(history, folder, of, right, benchmark=name, **changed)


def confirmed(history: History, folder: Path, *, fresh: bool = True, **more: str) -> Alarm:
    """A regression of step 1500 against step 900, seen again on fresh samples, or confirmed without."""
    alarm = suspected(history, folder, **more)
    if not fresh:
        return Alarms(history).settle(alarm.id, State.CONFIRMED, reason="the cluster is away")
    again = {**more, "run": f"{alarm.run}+confirm-{alarm.id}"}
    new, base = (
        evaluated(history, folder, step, right, **again)
        for step, right in ((1500, [4, 2, 2, 2] * 10), (900, GOOD))
    )
    return Alarms(history).settle(alarm.id, State.CONFIRMED, confirmation=new, base_confirmation=base)


def suspected(history: History, folder: Path, kind: Kind = Kind.REGRESSION, **more: str) -> Alarm:
    base, new = (
        evaluated(history, folder, step, right, **more) for step, right in ((900, GOOD), (1500, BAD))
    )
    return Alarms(history).raise_([Suspicion(kind, new, base, margin=MARGIN, alpha=ALPHA)])[0]
