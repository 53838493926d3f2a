"""A history in which a checkpoint got worse, and alarms of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evalcore.checkpoints import Checkpoint
from evalcore.history.alarms import Alarm, Alarms, Kind, State, Suspicion
from evalcore.history.store import History
from evalcore.summarize import summarize
from synthetic_results import Sample, manifest, write

SAMPLES = 4
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
    problem: str = "p{}",
    temperature: float = 0.6,
) -> int:
    """The id of an evaluation in which problem i has ``right[i]`` of SAMPLES samples right."""
    called = "final" if step is None else f"step-{step}"
    checkpoint = Checkpoint(path=f"/ckpt/{called}", run=run, name=called, step=step, digest=f"{run}-{step}")
    place = folder / run / called / name
    rows = [
        Sample(problem.format(i), sample, "7", sample < number)
        for i, number in enumerate(right)
        for sample in range(SAMPLES)
    ]
    made_by = manifest(len(right), SAMPLES, name=name, checkpoint=checkpoint)
    sampling = made_by.sampling.model_copy(update={"temperature": temperature})
    summarize(write(place, made_by.model_copy(update={"sampling": sampling}), rows))
    return history.record(place).id


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
