"""What anybody who lists processes sees, and what only their owner does."""

from __future__ import annotations

import contextlib

import psutil


def command_lines() -> set[str]:
    """Those of all processes."""
    return {" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])}


def in_environment(variable: str, of: str) -> set[str]:
    """The values of a variable in the environments of the processes that have a text in their command line."""
    found = set()
    for process in psutil.process_iter(["cmdline"]):
        if of in " ".join(process.info["cmdline"] or []):
            with contextlib.suppress(psutil.Error):
                found |= {process.environ().get(variable, "")}
    return found
