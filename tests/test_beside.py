"""What tests do where others of the same machine run at the same time."""

from __future__ import annotations

import errno
from pathlib import Path

from _pytest.pathlib import on_rm_rf_error


def test_an_old_folder_that_another_pytest_removes_too_fails_nobody(tmp_path: Path) -> None:
    # At the end of a run, after all its tests: as an error it would fail a run whose tests have passed.
    error = OSError(errno.ENOTEMPTY, "Directory not empty")
    assert on_rm_rf_error(None, str(tmp_path / "garbage-1"), error, start_path=tmp_path) is False
