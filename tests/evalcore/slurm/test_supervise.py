from __future__ import annotations

from pathlib import Path

import pytest

from evalcore.slurm import supervise


@pytest.mark.parametrize(("exit_code", "number", "ends_with"), [(0, None, 0), (3, None, 3), (None, 9, 137)])
def test_a_disk_without_room_for_the_result_does_not_change_how_a_job_ends(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    exit_code: int | None,
    number: int | None,
    ends_with: int,
) -> None:
    monkeypatch.setattr(supervise, "_RESULT_PATIENCE", 0.0)
    full = tmp_path / "result.json"
    full.symlink_to("/dev/full")
    result = {"exit_code": exit_code, "signal": number, "terminated": False}
    assert supervise._write(str(full), result) == ends_with
    assert capsys.readouterr().out == f"evalcore: cannot write {full}: No space left on device\n"
