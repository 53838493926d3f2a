"""Recording benchmark folders, and asking for what was recorded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import func, select

import postgres
from evalcore.checkpoints import Checkpoint
from evalcore.config import Sampling
from evalcore.counts import Pair, ProblemCounts
from evalcore.errors import ResultsError
from evalcore.history import database, open_history, schema
from evalcore.history.recording import Evaluated, Outcome, read
from evalcore.history.store import Evaluation, History
from evalcore.manifest import COUNTS, SCORECARD
from evalcore.summarize import Scorecard, summarize
from synthetic_results import Sample, manifest, write
from waiting import LONG

pytestmark = pytest.mark.slow

RIGHT, WRONG, UNKNOWN = True, False, None


def samples(*problems: tuple[str, list[bool | None]], **fields: str) -> Iterator[Sample]:
    for problem, verdicts in problems:
        for sample, verdict in enumerate(verdicts):
            yield Sample(problem, sample, "1", verdict, fields=fields)


def checkpoint(step: int | None, run: str = "tiny", digest: str = "c0ffee") -> Checkpoint:
    return Checkpoint(path=None, run=run, name=f"step-{step}", step=step, digest=digest)


Evaluate = Callable[..., Path]


@pytest.fixture
def evaluate(tmp_path: Path) -> Evaluate:
    """Make a benchmark folder of two problems with two samples each, summarized; returns it."""

    def evaluated(step: int | None = 1500, name: str = "toy", run: str = "tiny", right: int = 2) -> Path:
        folder = tmp_path / "results" / run / f"step-{step}" / name
        verdicts = [RIGHT] * right + [WRONG] * (4 - right)
        made_by = manifest(2, 2, name=name, checkpoint=checkpoint(step, run))
        write(folder, made_by, samples(("a", verdicts[:2]), ("b", verdicts[2:])))
        summarize(folder)
        return folder

    return evaluated


def card_of(history: History, found: Evaluation) -> Scorecard:
    """The scorecard that an evaluation was recorded from."""
    names = Scorecard.model_fields.keys() - {"subsets"}
    fields = {name: getattr(found, name) for name in names}
    return Scorecard.model_construct(**fields, subsets=history.tables([found.id])[found.id])


def everything(history: History) -> dict[str, list[tuple[object, ...]]]:
    """All rows of all tables."""
    with database.reading(history._engine).connect() as connection:
        return {
            table.name: [tuple(row) for row in connection.execute(select(table).order_by(*table.primary_key))]
            for table in schema.METADATA.sorted_tables
        }


def test_a_scorecard_comes_back_as_it_was(history: History, tmp_path: Path) -> None:
    judged = manifest(3, 2, greedy=True, judged=True)
    rows = [
        Sample("a", -1, "1", RIGHT, RIGHT, fields={"subset_for_metrics": "x", "cluster": "s"}),
        Sample("a", 0, "1", RIGHT, UNKNOWN, fields={"subset_for_metrics": "x", "cluster": "s"}),
        Sample("a", 1, None, WRONG, fields={"subset_for_metrics": "x", "cluster": "s"}),
        Sample("b", 0, "2", UNKNOWN, RIGHT, tokens=None, fields={"subset_for_metrics": "y"}),
        Sample("b", 1, "2", "absent", fields={"subset_for_metrics": "y", "finish_reason": "length"}),
    ]
    card = summarize(write(tmp_path / "toy", judged, rows))
    id_, outcome = history.record(tmp_path / "toy")
    assert outcome is Outcome.RECORDED
    found = history.evaluation(id_)
    assert history.evaluations() == [found], "once, and not for each of its tables"
    assert len(card.subsets) == 3
    assert card_of(history, found) == card
    assert Scorecard.model_validate(card_of(history, found).model_dump()) == card
    assert found.folder == tmp_path / "toy"
    assert found.counts == card.subsets[0].counts
    assert found.mode == card.subsets[0].modes[3]


def test_a_folder_recorded_again_changes_nothing(history: History, evaluate: Evaluate) -> None:
    folder = evaluate()
    first = history.record(folder)
    before = everything(history)
    os.utime(folder / SCORECARD, (0, 0))
    assert history.record(folder) == (first.id, Outcome.UNCHANGED)
    assert everything(history) == before
    assert len(before["evalcore_modes"]) > 2


def test_a_folder_summarized_again_with_more_samples_replaces_its_row(
    history: History, evaluate: Evaluate
) -> None:
    folder = evaluate()
    first = history.record(folder)
    more = manifest(3, 3, checkpoint=checkpoint(1500))
    write(folder, more, samples(("b", [WRONG, WRONG, RIGHT]), ("c", [RIGHT] * 3), ("a", [RIGHT] * 3)))
    card = summarize(folder)
    assert history.record(folder) == (first.id, Outcome.REPLACED)
    assert [card_of(history, it) for it in history.evaluations()] == [card]
    assert card.samples == 3
    # The first row of a key wins, so that two samples of each are those from before.
    assert history.pairs(first.id, first.id)["symbolic_correct"] == [
        Pair("a", 3, 3, 3, 3, None),
        Pair("b", 3, 1, 3, 1, None),
        Pair("c", 3, 3, 3, 3, None),
    ]


def test_other_weights_or_settings_or_another_place_are_another_evaluation(
    history: History, tmp_path: Path
) -> None:
    rows = list(samples(("a", [RIGHT])))

    def recorded(place: str, digest: str = "c0ffee", temperature: float = 0.7) -> Outcome:
        made_by = manifest(1, 1, checkpoint=checkpoint(1500, digest=digest))
        made_by.sampling = Sampling(temperature=temperature)
        summarize(write(tmp_path / place, made_by, rows))
        return history.record(tmp_path / place).outcome

    given = [
        ("here", "c0ffee", 0.7),
        ("here", "decaf", 0.7),
        ("here", "c0ffee", 0.6),
        ("there", "c0ffee", 0.7),
    ]
    assert {recorded(*it) for it in given} == {Outcome.RECORDED}
    assert {recorded(*it) for it in given} == {Outcome.UNCHANGED}
    assert len(history.evaluations()) == 4


def test_a_place_is_the_same_however_it_is_named(
    history: History, evaluate: Evaluate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = evaluate()
    first = history.record(folder)
    (tmp_path / "link").symlink_to(folder)
    assert history.record(tmp_path / "link") == (first.id, Outcome.UNCHANGED)
    monkeypatch.chdir(folder)
    assert history.record(Path()) == (first.id, Outcome.UNCHANGED)


def test_what_evaluations_share_is_kept_once(history: History, evaluate: Evaluate) -> None:
    for step in range(5):
        for name in ("toy", "other"):
            history.record(evaluate(step, name))
    rows = everything(history)
    assert len(rows["evalcore_evaluations"]) == 10
    assert len(rows["evalcore_checkpoints"]) == 5
    assert len(rows["evalcore_fingerprints"]) == len(rows["evalcore_problems"]) == 1


@pytest.mark.parametrize("missing", [SCORECARD, COUNTS])
def test_a_folder_that_was_not_summarized_is_refused(
    missing: str, evaluate: Evaluate, tmp_path: Path
) -> None:
    folder = evaluate()
    (folder / missing).unlink()
    with (
        open_history(f"sqlite:///{tmp_path}/h.sqlite") as history,
        pytest.raises(ResultsError, match=f"no {missing}; run `evalcore summarize {folder}`"),
    ):
        history.record(folder)


@pytest.mark.parametrize("samples_now", [2, 3])
def test_a_folder_evaluated_while_it_is_read_is_refused(
    samples_now: int, evaluate: Evaluate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = evaluate()
    # Other settings are noticed by the fingerprint, more samples by the scorecard alone.
    temperature = 0.6 if samples_now == 2 else 0.7
    read_before = ProblemCounts.load if samples_now == 2 else Scorecard.load

    def evaluated_meanwhile(folder: Path) -> object:
        now = manifest(2, samples_now, checkpoint=checkpoint(1500))
        now.sampling = Sampling(temperature=temperature)
        write(folder, now, samples(("a", [RIGHT] * 3)))
        summarize(folder)
        return read_before(folder)

    owner = ProblemCounts if samples_now == 2 else Scorecard
    monkeypatch.setattr(owner, "load", evaluated_meanwhile)
    with (
        open_history(f"sqlite:///{tmp_path}/h.sqlite") as history,
        pytest.raises(ResultsError, match="is being evaluated"),
    ):
        history.record(folder)


def test_the_last_checkpoints_of_a_run(history: History, evaluate: Evaluate) -> None:
    for step in (3, None, 1, 10, 2):  # as they come, and not in their order
        history.record(evaluate(step))
    history.record(evaluate(10, "other"))
    history.record(evaluate(20, run="another"))
    history.record(evaluate(30, "other", run="another"))

    def listed(**asked: object) -> list[tuple[str, int | None, str]]:
        found = history.evaluations(**asked)  # type: ignore[arg-type]
        return [(it.checkpoint.run, it.checkpoint.step, it.benchmark) for it in found]

    assert listed(run="tiny", last=2) == [
        ("tiny", 10, "other"),
        ("tiny", 10, "toy"),
        ("tiny", 3, "toy"),
    ]
    assert [step for _, step, _ in listed(run="tiny", benchmark="toy")] == [10, 3, 2, 1, None]
    # Of the checkpoints that have that benchmark.
    assert listed(run="another", benchmark="toy", last=1) == [("another", 20, "toy")]
    assert listed(last=1) == [
        ("another", 30, "other"),
        ("tiny", 10, "other"),
        ("tiny", 10, "toy"),
    ]
    assert listed(run="nobody's") == []
    [fingerprint] = {it.fingerprint for it in history.evaluations()}
    assert len(listed(fingerprint=fingerprint)) == 8
    assert listed(fingerprint="0" * 12) == []


def test_the_line_of_the_table_that_is_asked_for(history: History, tmp_path: Path) -> None:
    rows = [Sample("a", sample, "1", sample == 0) for sample in (-1, 0, 1)]
    for name, count in (("both", 2), ("greedy-only", 0)):
        card = summarize(write(tmp_path / name, manifest(1, count, name=name, greedy=True), rows))
        history.record(tmp_path / name)
        assert "greedy" in {mode.evaluation_mode for mode in card.subsets[0].modes}

    def shown(mode: str | None) -> list[tuple[str, float] | None]:
        found = [it.mode for it in history.evaluations(mode=mode)]
        return [it and (it.evaluation_mode, it.symbolic_correct.value) for it in found]  # type: ignore[union-attr]

    assert shown(None) == [("pass@1[2]", 0.5), ("greedy", 0.0)]
    assert shown("pass@2") == [("pass@2", 1.0), None]
    assert shown("greedy") == [("greedy", 0.0), ("greedy", 0.0)]


def test_of_several_evaluations_the_newest_comes_first(
    history: History, evaluate: Evaluate, tmp_path: Path
) -> None:
    newest = evaluate()
    older = newest.rename(tmp_path / "older")
    evaluate()
    for folder, age in ((newest, 10), (older, 20)):
        os.utime(folder / SCORECARD, (1e9 - age,) * 2)
        history.record(folder)
    assert [it.folder for it in history.evaluations()] == [newest, older]


def test_tables_of_more_than_one_query_takes(
    history: History, evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [history.record(evaluate(step)).id for step in (1, 2, 3)]
    at_once = history.tables(ids)
    assert all(at_once[id_][0].modes for id_ in ids)
    monkeypatch.setattr("evalcore.history.store._AT_ONCE", 2)
    assert history.tables(ids) == at_once


def test_training_runs(history: History, evaluate: Evaluate) -> None:
    evaluated = [(1, "toy", "a", 10), (2, "toy", "b", 20), (3, "toy", "b", 15), (3, "x", "b", 5)]
    for step, name, run, time in evaluated:
        folder = evaluate(step, name, run)
        os.utime(folder / SCORECARD, (time, time))
        history.record(folder)
    first, second = history.training_runs()
    assert (first.name, first.checkpoints, first.evaluations, first.last_step) == ("b", 2, 3, 3)
    assert first.evaluated_at == datetime.fromtimestamp(20, UTC)
    assert (second.name, second.evaluated_at) == ("a", datetime.fromtimestamp(10, UTC))


def test_times_are_utc_wherever_the_session_is(
    history: History, evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = evaluate()
    os.utime(folder / SCORECARD, (1_000_000_000, 1_000_000_000))
    history.record(folder)
    history.close()
    monkeypatch.setenv("PGTZ", "Asia/Tokyo")
    [found] = history.evaluations()
    assert found.evaluated_at == datetime(2001, 9, 9, 1, 46, 40, tzinfo=UTC)
    assert found.evaluated_at.isoformat() == "2001-09-09T01:46:40+00:00"


def test_pairs_are_of_the_problems_in_common_with_their_clusters(history: History, tmp_path: Path) -> None:
    def recorded(name: str, step: int, rows: Iterator[Sample] | list[Sample]) -> int:
        made_by = manifest(3, 2, checkpoint=checkpoint(step), greedy=True, judged=True)
        summarize(write(tmp_path / name, made_by, rows))
        return history.record(tmp_path / name).id

    cluster = {"cluster": "s"}
    base = recorded(
        "base",
        1,
        [
            Sample("b", 0, "1", RIGHT, RIGHT),
            Sample("b", 1, "1", RIGHT, WRONG),
            Sample("a", 0, "1", WRONG, RIGHT, fields=cluster),
            Sample("a", 1, None, UNKNOWN, RIGHT, fields=cluster),
            Sample("a", -1, "1", RIGHT, WRONG, fields=cluster),
            Sample("only-base", 0, "1", RIGHT, RIGHT),
        ],
    )
    new = recorded(
        "new",
        2,
        [
            Sample("a", 0, "1", RIGHT, RIGHT, fields=cluster),
            Sample("b", 0, "1", WRONG, RIGHT),
            Sample("b", 1, "1", RIGHT, UNKNOWN),
            Sample("only-new", 0, "1", RIGHT, RIGHT),
        ],
    )
    pairs = history.pairs(new, base)
    assert pairs["symbolic_correct"] == [
        Pair("a", n=1, c=1, base_n=1, base_c=0, cluster="s"),
        Pair("b", n=2, c=1, base_n=2, base_c=2, cluster=None),
    ]
    assert pairs["judge_correct"] == [
        Pair("a", n=1, c=1, base_n=2, base_c=2, cluster="s"),
        Pair("b", n=1, c=1, base_n=2, base_c=1, cluster=None),
    ]
    assert pairs["answered"][0] == Pair("a", 1, 1, 2, 1, "s")
    assert pairs["tokens"][0] == Pair("a", 1, 10, 2, 20, "s")
    assert pairs["unparsable"][1] == Pair("b", 2, 1, 2, 0)
    greedy = history.pairs(new, base, greedy=True)
    assert greedy.keys() == pairs.keys()
    assert greedy["symbolic_correct"][0] == Pair("a", 0, 0, 1, 1, "s")


def test_what_an_earlier_version_recorded_has_fewer_columns(history: History, evaluate: Evaluate) -> None:
    """Its folder's, and its row's: they are the same columns."""
    old, new = evaluate(1), evaluate(2)
    content = json.loads((old / COUNTS).read_text())
    content["sampled"] = {name: content["sampled"][name] for name in ("symbolic_correct", "answered")}
    (old / COUNTS).write_text(json.dumps(content))
    base, evaluation = (history.record(folder).id for folder in (old, new))
    assert list(history.pairs(evaluation, base)) == ["symbolic_correct", "answered"]
    assert list(history.pairs(base, evaluation)) == ["symbolic_correct", "answered"]
    assert "truncated" in history.pairs(evaluation, evaluation)
    assert history.pairs(evaluation, base, greedy=True) == {}


def test_what_cannot_be_paired_is_said(history: History, evaluate: Evaluate) -> None:
    toy, other = history.record(evaluate()).id, history.record(evaluate(name="other")).id
    with pytest.raises(
        ResultsError, match="two benchmarks cannot be paired: toy of tiny/step-1500, other of"
    ):
        history.pairs(toy, other)
    with pytest.raises(ResultsError, match="no evaluation 4711"):
        history.pairs(toy, 4711)
    with pytest.raises(ResultsError, match="no evaluation 4711"):
        history.evaluation(4711)


def test_in_what_two_fingerprints_differ(history: History, tmp_path: Path) -> None:
    def recorded(name: str, temperature: float, judged: bool, template: str | None) -> str:
        made_by = manifest(1, 1, judged=judged)
        made_by.sampling = Sampling(temperature=temperature)
        made_by.chat_template = template
        summarize(write(tmp_path / name, made_by, samples(("a", [RIGHT]))))
        assert history.evaluation(history.record(tmp_path / name).id).fingerprint == made_by.fingerprint
        assert history.fingerprint_parts(made_by.fingerprint) == {
            **made_by.fingerprint_parts,
            "server_args": [],
            "sampling": {**made_by.sampling.model_dump(), "stop": []},
        }
        return made_by.fingerprint

    a, b = recorded("a", 0.7, False, None), recorded("b", 0.6, False, "t")
    assert history.differences(b, a) == {"chat_template": ("t", None), "sampling.temperature": (0.6, 0.7)}
    assert history.differences(a, a) == {}
    judged = recorded("judged", 0.7, True, None)
    assert history.differences(judged, a)["judging.model"] == ("j", None)
    with pytest.raises(ResultsError, match="no fingerprint 000000000000"):
        history.differences(a, "0" * 12)


RECORD = """
import sys
from pathlib import Path
from evalcore.history import open_history
with open_history(sys.argv[1]) as history:
    print("ready", flush=True)
    sys.stdin.readline()
    for folder in sys.argv[2:]:
        history.record(Path(folder))
"""


@pytest.mark.slow
def test_processes_that_record_the_same_folders_at_once(
    history: History, url: str, evaluate: Evaluate
) -> None:
    folders = [evaluate(step) for step in range(20)]
    recording = [
        subprocess.Popen(
            [sys.executable, "-c", RECORD, url, *map(str, folders)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in recording:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in recording:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    errors = [process.communicate(timeout=LONG)[1] for process in recording]
    assert not any(errors), errors
    found = history.evaluations()
    assert [card_of(history, it) for it in found] == [Scorecard.load(folder) for folder in reversed(folders)]


def test_a_batch_is_recorded_whole_or_not_at_all(history: History, evaluate: Evaluate) -> None:
    good = read(evaluate())

    def torn() -> Iterator[Evaluated]:
        yield good
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        history.add(torn())
    assert history.evaluations() == []
    with database.reading(history._engine).connect() as connection:
        assert connection.scalar(select(func.count()).select_from(schema.checkpoints)) == 0


def test_a_database_that_goes_away_is_said_in_one_line(history: History, url: str) -> None:
    history.close()
    if url.startswith("sqlite"):
        file = Path(url.removeprefix("sqlite:///"))
        file.unlink()
        file.mkdir()
    else:
        postgres.drop_database(url)
    with pytest.raises(ResultsError, match=r"the history \S+: ") as said:
        history.evaluations()
    assert "\n" not in str(said.value)
