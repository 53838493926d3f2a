"""``evalcore generate`` as a task: start an inference server, ask it every problem, stop it."""

from __future__ import annotations

from operators.job import JobOperator


class GenerateOperator(JobOperator):
    """Runs ``evalcore generate …`` as a job; see ``JobOperator``."""
