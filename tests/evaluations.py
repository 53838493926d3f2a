"""Evaluations in a history, with the verdicts that a test chose."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evalcore.checkpoints import Checkpoint
from evalcore.history.store import History
from evalcore.summarize import summarize
from synthetic_results import Sample, manifest, write


def checkpoint(run: str, step: int, *, name: str = "", digest: str = "") -> Checkpoint:
    name = name or f"step-{step}"
    return Checkpoint(path=f"/ckpt/{name}", run=run, name=name, step=step, digest=digest or f"d{step}")


def record(
    history: History,
    folder: Path,
    of: Checkpoint,
    right: Sequence[int],
    *,
    samples: int = 4,
    benchmark: str = "toy",
    problem: str = "p{}",
    seed: int = 0,
    temperature: float = 0.6,
    cut_off: int = 0,
    **changed: Any,
) -> int:
    """Record an evaluation with so many right samples of each problem; its id.

    problem: a pattern of their ids. cut_off: how many samples of each problem ended at the token limit. changed:
    parts of the manifest that are other than usual.
    """
    made_by = manifest(len(right), samples, name=benchmark, checkpoint=of)
    sampling = made_by.sampling.model_copy(update={"seed": seed, "temperature": temperature})
    made_by = made_by.model_copy(update={"sampling": sampling, **changed})
    rows = [
        Sample(
            problem.format(i),
            s,
            "7",
            s < count,
            fields={"finish_reason": "length" if s < cut_off else "stop"},
        )
        for i, count in enumerate(right)
        for s in range(samples)
    ]
    place = folder / of.run / of.name / benchmark
    write(place, made_by, rows)
    summarize(place)
    return history.record(place).id
