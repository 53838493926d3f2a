"""run: all stages in one process, where one benchmark's failure is not the others'."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evalcore.config import EvalConfig, load_config
from evalcore.errors import CheckpointError
from evalcore.generate import generate
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


def test_a_wrong_request_raises_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        run(
            load_config(
                checkpoint=str(tmp_path / "no"), results=str(tmp_path / "r"), benchmarks="tiny-arithmetic"
            )
        )
    assert not (tmp_path / "r").exists()
