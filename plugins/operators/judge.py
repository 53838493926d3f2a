"""``evalcore judge`` as a task: ask a judge model about the answers that need one."""

from __future__ import annotations

from operators.job import JobOperator


class JudgeOperator(JobOperator):
    """Runs ``evalcore judge …`` as a job; see ``JobOperator``."""
