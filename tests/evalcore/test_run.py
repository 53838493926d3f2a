"""run: all stages in one process, where one benchmark's failure is not the others'."""

from __future__ import annotations

import json
import logging
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from evalcore.config import EvalConfig, load_config
from evalcore.errors import CheckpointError, ResultsError
from evalcore.generate import generate
from evalcore.history import open_history
from evalcore.history.store import History, Recorded
from evalcore.run import run
from evalcore.summarize import Scorecard
from judge_server import running_judge
from recording_server import recording


def config(results: Path, server: dict[str, Any], **options: Any) -> EvalConfig:
    defaults = {"benchmarks": "tiny-arithmetic:1", "max_problems": 2, "wandb": {"mode": "disabled"}}
    return load_config(results=str(results), server=server, **(defaults | options))


def test_a_benchmark_that_cannot_be_generated_does_not_lose_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks/broken.yaml").write_text("name: broken\nsource: {path: broken.jsonl}\n")
    (tmp_path / "benchmarks/broken.jsonl").write_text(json.dumps({"problem": "1+1?"}))
    monkeypatch.setenv("EVALCORE_INCLUDE", str(tmp_path))
    with recording() as server:
        evaluated = run(config(tmp_path, server.settings, benchmarks="broken:1,tiny-arithmetic:1"))
    assert [card.benchmark for card in evaluated.scorecards] == ["tiny-arithmetic"]
    [failure] = evaluated.failures
    assert failure.startswith("1 of 2 benchmarks failed: broken: ")
    assert evaluated.folder == tmp_path / "models" / "m"
    assert evaluated.tracked is None
    folder = evaluated.folder / "tiny-arithmetic"
    assert evaluated.scorecards == [Scorecard.load(folder)]


def test_what_an_earlier_run_made_is_no_result_of_one_whose_server_refuses(tmp_path: Path) -> None:
    with recording() as server:
        assert run(config(tmp_path, server.settings)).failures == []
        server.status = 401
        refused = run(config(tmp_path, server.settings, inference={"temperature": 0.1}))
    assert refused.scorecards == []
    server_said, benchmark_said = refused.failures
    assert f"{server.settings['address']}: 401" in server_said
    assert benchmark_said.startswith("tiny-arithmetic: ")
    assert "no generations" in benchmark_said


def test_another_evaluation_of_the_folder_meanwhile_gives_no_numbers_of_its_own(tmp_path: Path) -> None:
    with recording() as server:
        other = config(tmp_path, server.settings, inference={"temperature": 1.0})
        # While the first problem is being answered.
        server.on_request = lambda: generate(other) if len(server.requests) == 2 else None
        evaluated = run(config(tmp_path, server.settings, client={"concurrency": 1}))
        assert evaluated.scorecards == []
        assert not list(tmp_path.rglob("grades"))
        [failure] = evaluated.failures
        assert "holds another evaluation now (temperature 1," in failure
        assert run(config(tmp_path, server.settings)).failures == []


def test_with_a_judge_the_tables_have_its_columns(tmp_path: Path) -> None:
    with recording("So 17 = \\boxed{17}") as server, running_judge() as judge:
        evaluated = run(config(tmp_path, server.settings, judge={"model": "j", "address": judge.address}))
    [card] = evaluated.scorecards
    assert (card.judged, card.complete, evaluated.failures) == (True, True, [])
    correct = card.subsets[0].modes[0].judge_correct
    assert correct
    assert correct.value == 1.0
    assert judge.questions == ["17", "17"]


def with_another_benchmark(folder: Path) -> Path:
    """An include folder with the benchmark ``other``."""
    (folder / "benchmarks").mkdir()
    (folder / "benchmarks/other.yaml").write_text("name: other\nsource: {path: other.jsonl}\n")
    (folder / "benchmarks/other.jsonl").write_text('{"problem": "1+1?", "expected_answer": "2"}')
    return folder


def test_what_is_evaluated_is_in_the_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVALCORE_HISTORY", f"sqlite:///{tmp_path}/history.sqlite")
    with recording() as server:
        for temperature in (0.1, 0.1, 0.2):
            evaluated = run(config(tmp_path, server.settings, inference={"temperature": temperature}))
    with open_history() as history:
        new, old = history.evaluations()
    assert (new.folder, new.benchmark) == (evaluated.folder / "tiny-arithmetic", "tiny-arithmetic")
    assert new.fingerprint != old.fingerprint
    assert new.fingerprint == evaluated.scorecards[0].fingerprint


def test_a_history_that_cannot_be_used_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("EVALCORE_HISTORY", "sqlite:////proc/nowhere/history.sqlite")
    with recording() as server, caplog.at_level(logging.WARNING):
        evaluated = run(config(tmp_path, server.settings))
    assert [card.benchmark for card in evaluated.scorecards] == ["tiny-arithmetic"]
    assert evaluated.failures == []
    [warning] = [record.message for record in caplog.records if "history" in record.message]
    assert warning.startswith("not recorded in the history: the history cannot be kept in /proc/nowhere")


def test_a_history_that_goes_away_is_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "history.sqlite"
    monkeypatch.setenv("EVALCORE_HISTORY", f"sqlite:///{file}")
    recorded = History.record

    def broken(history: History, folder: Path) -> Recorded:
        with closing(sqlite3.connect(file, isolation_level=None)) as database:
            database.execute("DROP TABLE IF EXISTS evalcore_verdicts")
        return recorded(history, folder)

    monkeypatch.setattr(History, "record", broken)
    monkeypatch.setenv("EVALCORE_INCLUDE", str(with_another_benchmark(tmp_path)))
    with recording() as server, caplog.at_level(logging.WARNING):
        evaluated = run(config(tmp_path, server.settings, benchmarks="other:1,tiny-arithmetic:1"))
    assert (len(evaluated.scorecards), evaluated.failures) == (2, [])
    [warning] = [record.message for record in caplog.records if "history" in record.message]
    assert warning.count("evalcore_verdicts") == 1


def test_a_benchmark_that_cannot_be_recorded_does_not_lose_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("EVALCORE_HISTORY", f"sqlite:///{tmp_path}/history.sqlite")
    monkeypatch.setenv("EVALCORE_INCLUDE", str(with_another_benchmark(tmp_path)))
    recorded = History.record

    def refusing(history: History, folder: Path) -> Recorded:
        if folder.name == "other":
            raise ResultsError("of no use")
        return recorded(history, folder)

    monkeypatch.setattr(History, "record", refusing)
    with recording() as server, caplog.at_level(logging.WARNING):
        run(config(tmp_path, server.settings, benchmarks="other:1,tiny-arithmetic:1"))
    with open_history() as history:
        assert [it.benchmark for it in history.evaluations()] == ["tiny-arithmetic"]
    assert "not recorded in the history: of no use" in [record.message for record in caplog.records]


@pytest.mark.slow
def test_without_the_history_s_packages_a_run_is_a_run(tmp_path: Path) -> None:
    code = "import sys; sys.modules['sqlalchemy'] = None; from evalcore.cli import main; main(sys.argv[1:])"
    with recording() as server:
        address = server.settings["address"]
        options = ["--server-address", address, "--model", "m", "-b", "tiny-arithmetic:1"]
        done = subprocess.run(
            [sys.executable, "-c", code, "run", *options, "-o", tmp_path, "--max-problems", "2"],
            capture_output=True,
            text=True,
        )
    assert (done.returncode, "pass@1" in done.stdout) == (0, True), done.stderr
    [line] = [line for line in done.stderr.splitlines() if "history" in line]
    assert line.endswith("needs sqlalchemy, which is not installed: pip install 'evalcore[history]'")


def test_a_wrong_request_raises_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        run(
            load_config(
                checkpoint=str(tmp_path / "no"), results=str(tmp_path / "r"), benchmarks="tiny-arithmetic"
            )
        )
    assert not (tmp_path / "r").exists()
