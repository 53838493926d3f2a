"""``evalcore track`` as a task: the scorecards of one checkpoint to W&B."""

from __future__ import annotations

from operators.job import JobOperator


class TrackOperator(JobOperator):
    """Runs ``evalcore track …`` as a job; see ``JobOperator``."""
