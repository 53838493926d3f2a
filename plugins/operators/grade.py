"""``evalcore grade`` as a task: extract the answers and compare them with the references."""

from __future__ import annotations

from operators.job import JobOperator


class GradeOperator(JobOperator):
    """Runs ``evalcore grade …`` as a job; see ``JobOperator``."""
