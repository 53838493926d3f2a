"""How long tests wait."""

from __future__ import annotations

import inspect

import pytest

from demo.engine import BUILD_TIMEOUT
from demo.standalone import START_TIMEOUT, Airflow
from waiting import LONG


def test_who_waits_says_for_what_before_pytest_ends_the_whole_run(pytestconfig: pytest.Config) -> None:
    a_run = inspect.signature(Airflow.wait).parameters["timeout"].default
    ends = float(pytestconfig.getini("faulthandler_timeout"))
    assert max(LONG, a_run, START_TIMEOUT, BUILD_TIMEOUT) < ends
