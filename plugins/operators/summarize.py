"""``evalcore summarize`` as a task: the scorecard of one benchmark."""

from __future__ import annotations

from operators.job import JobOperator


class SummarizeOperator(JobOperator):
    """Runs ``evalcore summarize …`` as a job; see ``JobOperator``."""
