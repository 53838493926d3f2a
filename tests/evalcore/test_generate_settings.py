"""generate: what a folder's rows were asked with, and whose they are."""

from __future__ import annotations

import json
import logging
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evalcore.config import EvalConfig, Judge, load_config
from evalcore.errors import CheckpointError, ResultsError
from evalcore.generate import generate
from evalcore.grade import grade
from evalcore.judge import judge
from evalcore.manifest import GENERATIONS, MANIFEST, Manifest
from evalcore.plan import plan
from evalcore.records import Row, read_rows
from evalcore.summarize import Scorecard, summarize
from judge_server import running_judge
from recording_server import RecordingServer, recording

CHECKPOINT = sorted((Path(__file__).parents[2] / "include/tiny/checkpoints").iterdir())[1]


@pytest.fixture
def server() -> Iterator[RecordingServer]:
    with recording() as server:
        yield server


def config(results: Path, server: RecordingServer, **options: Any) -> EvalConfig:
    defaults = {"benchmarks": "tiny-arithmetic:3", "max_problems": 2, "server": server.settings}
    return load_config(results=str(results), **(defaults | options))


def folder_of(asked: EvalConfig) -> Path:
    [benchmark] = plan(asked).benchmarks
    return Path(benchmark.folder)


def rows(folder: Path) -> list[Row]:
    return list(read_rows(folder / GENERATIONS, Manifest.load(folder).generation_id))


def test_of_two_evaluations_at_once_none_takes_the_rows_of_the_other(
    server: RecordingServer, tmp_path: Path
) -> None:
    ours, other = (config(tmp_path, server, inference={"temperature": t}) for t in (0.7, 1.0))
    [a], [b] = plan(ours).benchmarks, plan(other).benchmarks
    folder = Path(a.folder)
    generate(ours)
    assert Manifest.load(folder, a.settings).settings == a.settings
    generate(other)
    for stage in (
        lambda: grade(folder, settings=a.settings),
        lambda: judge(folder, Judge(model="j"), settings=a.settings),
        lambda: summarize(folder, settings=a.settings),
    ):
        with pytest.raises(
            ResultsError, match=r"another evaluation now \(temperature 1, .*from generate"
        ) as e:
            stage()
        assert "\n" not in str(e.value)
    assert not (folder / "grades").exists()
    grade(folder, settings=b.settings)
    assert summarize(folder, settings=b.settings).settings == b.settings
    with pytest.raises(ResultsError, match=r"scorecard.json: written by another evaluation"):
        Scorecard.load(folder, a.settings)

    asked = len(server.requests)
    generate(ours)
    assert len(server.requests) == asked
    grade(folder, settings=a.settings)
    assert summarize(folder, settings=a.settings) == Scorecard.load(folder, a.settings)
    # By hand it is whatever the folder holds.
    assert summarize(folder) == Scorecard.load(folder)


def test_a_scorecard_stays_its_evaluations_while_the_next_one_generates(
    server: RecordingServer, tmp_path: Path
) -> None:
    ours = config(tmp_path, server)
    [planned] = plan(ours).benchmarks
    generate(ours)
    folder = Path(planned.folder)
    grade(folder)
    card = summarize(folder)
    generate(config(tmp_path, server, inference={"temperature": 1.0}))
    assert Scorecard.load(folder, planned.settings) == card


def test_another_judge_is_another_evaluation(server: RecordingServer, tmp_path: Path) -> None:
    with running_judge() as judge_server:
        first, second = (
            config(tmp_path, server, judge={"model": model, "address": judge_server.address})
            for model in ("one", "two")
        )
        [a], [b] = plan(first).benchmarks, plan(second).benchmarks
        folder = Path(a.folder)
        for asked in (first, second):
            generate(asked)
        grade(folder, settings=b.settings)
        judge(folder, second.judge, settings=b.settings)
        with pytest.raises(ResultsError, match="another evaluation"):
            summarize(folder, settings=a.settings)
        assert summarize(folder, settings=b.settings).judged


def test_server_arguments_that_decide_answers_make_other_rows(
    server: RecordingServer, tmp_path: Path
) -> None:
    def ids(*args: str) -> tuple[str, ...]:
        asked = config(tmp_path, server, benchmarks="tiny-arithmetic:0")
        # As if the server had been started with them, which takes longer than all of this.
        asked = asked.model_copy(update={"server": asked.server.model_copy(update={"args": args})})
        generate(asked)
        manifest = Manifest.load(folder_of(asked))
        assert manifest.settings == plan(asked).benchmarks[0].settings
        return manifest.generation_id, manifest.grading_id, manifest.fingerprint, manifest.settings

    plain = ids()
    asked = len(server.requests)
    assert ids("--max-num-seqs", "3") == plain
    assert len(server.requests) == asked
    assert all(a != b for a, b in zip(plain, ids("--max-model-len", "64"), strict=True))
    assert len(server.requests) == 2 * asked


def test_a_checkpoint_overwritten_while_its_server_starts(server: RecordingServer, tmp_path: Path) -> None:
    checkpoint = tmp_path / "run" / "step-1"
    shutil.copytree(CHECKPOINT, checkpoint)
    settings = json.loads((checkpoint / "config.json").read_text())

    def overwrite() -> None:
        (checkpoint / "config.json").write_text(json.dumps({**settings, "rope_theta": 7.0}))

    server.on_request = overwrite
    asked = config(tmp_path / "results", server, checkpoint=str(checkpoint))
    with pytest.raises(CheckpointError, match=r"step-1: overwritten while its server started"):
        generate(asked)
    assert len(server.requests) == 1
    assert rows(folder_of(asked)) == []
    # Done again, it is another checkpoint, of another id.
    [done] = generate(asked)
    assert done.new == 8


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda text: text[:-9], r"unreadable \(unexpected end of data"),
        (
            lambda text: text.replace('"samples": 3', '"samples": "x"'),
            r"samples: Input .*; written by evalcore \d",
        ),
        (lambda text: text.replace('"samples": 3', '"sample": 3'), "samples: Field required; written by"),
        (lambda text: "[]", "not a JSON object"),
    ],
)
def test_an_unreadable_manifest_is_written_anew_and_no_row_is_lost(
    harm: Any, message: str, server: RecordingServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asked = config(tmp_path, server)
    [done] = generate(asked)
    file = done.folder / MANIFEST
    before = file.read_text()
    file.write_text(harm(before))
    with pytest.raises(ResultsError, match=f"{message}.*`evalcore generate` writes a new one"):
        grade(done.folder)
    [again] = generate(asked)
    assert again.new == 0
    assert [r for r in caplog.records if r.levelno == logging.WARNING and "unreadable" in r.getMessage()]
    assert len(rows(done.folder)) == 8


def test_the_server_the_rows_came_from_is_kept(server: RecordingServer, tmp_path: Path) -> None:
    asked = config(tmp_path, server)
    [done] = generate(asked)
    first = Manifest.load(done.folder)
    known = first.server.model_copy(update={"version": "0.33"})
    first.model_copy(update={"server": known}).save(done.folder)
    generate(asked)
    assert Manifest.load(done.folder).server == known


def test_groups_are_asked_with_n_and_single_samples_without(server: RecordingServer, tmp_path: Path) -> None:
    generate(config(tmp_path / "grouped", server))
    assert sorted(body.get("n", 0) for body in server.requests) == [0, 0, 0, 3, 3]
    server.requests.clear()
    generate(config(tmp_path / "single", server, client={"group_samples": False}))
    assert len(server.requests) == 1 + 2 * 4
    assert not any("n" in body for body in server.requests)


def test_rows_carry_the_cluster_of_their_problem(
    server: RecordingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks/texts.yaml").write_text(
        "name: texts\nsource: {path: texts.jsonl}\nprompt: tiny/arithmetic\n"
    )
    problem = {"problem": "Mia has 2 pens.", "expected_answer": "2"}
    problems = [{**problem, "id": "a", "cluster": 7}, {**problem, "id": "b"}]
    (tmp_path / "benchmarks/texts.jsonl").write_text("\n".join(map(json.dumps, problems)))
    monkeypatch.setenv("EVALCORE_INCLUDE", str(tmp_path))
    [done] = generate(config(tmp_path, server, benchmarks="texts:0"))
    assert {row["problem_id"]: row.get("cluster") for row in rows(done.folder)} == {"a": "7", "b": None}


def test_as_many_connections_as_wanted_may_be_open(server: RecordingServer, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (400, hard))
    try:
        generate(config(tmp_path, server, client={"concurrency": 512}))
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= min(512, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
