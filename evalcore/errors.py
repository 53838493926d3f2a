"""The exceptions a user may meet. Each message is one line: what, where, and what to do next.

The CLI prints any of them as ``evalcore: error: <message>`` and exits with 1; a bug is anything else
and keeps its traceback.
"""

from __future__ import annotations


class EvalError(Exception):
    """Something the user can mend: bad input, a missing file, a server that is gone."""


class ConfigError(EvalError):
    """A setting, override, suite or prompt that is unknown or out of range."""


class BenchmarkError(EvalError):
    """A benchmark that is unknown, cannot be fetched, or holds a row that cannot be used."""


class CheckpointError(EvalError):
    """A checkpoint that is missing, incomplete or of a format that cannot be used."""


class ResultsError(EvalError):
    """A results folder that cannot be written, read or resumed."""


class ServerError(EvalError):
    """An inference server that did not start, died, or answers something else than was asked."""


class JobError(EvalError):
    """A job that could not be started, failed, or was lost."""
