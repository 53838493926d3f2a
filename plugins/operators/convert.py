"""``evalcore convert`` as a task: the checkpoint in the format and precision its server is to have."""

from __future__ import annotations

from operators.job import JobOperator


class ConvertOperator(JobOperator):
    """Runs ``evalcore convert …`` as a job; see ``JobOperator``."""
