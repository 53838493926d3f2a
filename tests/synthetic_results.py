"""Benchmark folders with rows that a test chose, written with the package's own writers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from evalcore.checkpoints import Checkpoint
from evalcore.config import Sampling
from evalcore.grading import VERSION
from evalcore.manifest import (
    GENERATIONS,
    GRADES,
    JUDGEMENTS,
    BenchmarkInfo,
    Grading,
    Judging,
    Manifest,
    PromptInfo,
    ServerInfo,
)
from evalcore.records import PartWriter

CHECKPOINT = Checkpoint(path=None, run="tiny", name="step-1500", step=1500, digest="c0ffee")


class Sample(NamedTuple):
    """One row of each stage. answer None: none was found; grades: True, False, None (no verdict) or "absent".

    repeats None: of a version that did not look.
    """

    problem: str
    sample: int
    answer: str | None = None
    symbolic: bool | str | None = False
    judge: bool | str | None = "absent"
    tokens: int | None = 10
    fields: dict[str, Any] = {}
    repeats: bool | None = False


def manifest(
    problems: int,
    samples: int,
    *,
    name: str = "toy",
    greedy: bool = False,
    judged: bool = False,
    checkpoint: Checkpoint = CHECKPOINT,
) -> Manifest:
    prompt = PromptInfo(name="generic/math", digest="p")
    return Manifest(
        settings="5e771265",
        checkpoint=checkpoint,
        benchmark=BenchmarkInfo(
            name=name,
            split="test",
            digest="d",
            num_problems=problems,
            metrics=("majority", "pass"),
            needs_judge=judged,
        ),
        prompt=prompt,
        chat_template=None,
        sampling=Sampling(),
        samples=samples,
        greedy=greedy,
        server=ServerInfo(type="openai", model="toy-model", version=None),
        grading=Grading(grader="math", options={}, version=VERSION),
        judging=Judging(model="j", prompt=prompt, temperature=0, tokens_to_generate=8) if judged else None,
    )


def write(folder: Path, made_by: Manifest, rows: Iterable[Sample]) -> Path:
    """Write manifest, generations, grades and judgements; returns the folder."""
    made_by.save(folder)
    generations = PartWriter(folder / GENERATIONS, f"{made_by.generation_id}-0")
    grades = PartWriter(folder / GRADES, f"{made_by.grading_id}-0")
    judgements = PartWriter(folder / JUDGEMENTS, f"{made_by.judging_id}-0")
    with generations, grades, judgements:
        for row in rows:
            key = {"problem_id": row.problem, "sample": row.sample}
            text = {
                "generation": f"so {row.answer}",
                "num_generated_tokens": row.tokens,
                "finish_reason": "stop",
            }
            generations.write({**key, **text, **row.fields})
            if row.symbolic != "absent":
                looked_at = {} if row.repeats is None else {"repeats": row.repeats}
                grade = {"predicted_answer": row.answer, "symbolic_correct": row.symbolic, **looked_at}
                grades.write({**key, **grade})
            if row.judge != "absent":
                judgements.write({**key, "judgement": "", "judge_correct": row.judge})
    return folder
