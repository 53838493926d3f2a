"""``evalcore record`` and ``evalcore history``: what they print, and what they export."""

from __future__ import annotations

import csv
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from evalcore import cli
from evalcore.checkpoints import Checkpoint
from evalcore.history import open_history
from evalcore.history.alarms import Alarms, Kind, State, Suspicion
from evalcore.manifest import SCORECARD
from evalcore.summarize import summarize
from evaluations import checkpoint, record
from synthetic_results import Sample, manifest, write

pytestmark = pytest.mark.slow

Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line on a history of this test; returns what it prints, or its error."""
    monkeypatch.setenv("EVALCORE_HISTORY", f"sqlite:///{tmp_path}/history.sqlite")

    def ran(*arguments: object) -> str:
        with pytest.raises(SystemExit) as exit_:
            cli.main(list(map(str, arguments)))
        said = capsys.readouterr()
        return said.out if exit_.value.code == 0 else said.err.splitlines()[-1]

    return ran


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Results of two training runs: checkpoints a/9 and a/10 on two benchmarks, one of them judged, and b/x."""
    root = tmp_path / "results"
    for name, step, run_name in (("step-9", 9, "a"), ("step-10", 10, "a"), ("[red]x", None, "b")):
        checkpoint = Checkpoint(path=None, run=run_name, name=name + "\x1b[2J", step=step, digest=name)
        folder = root / run_name / name
        judged = manifest(1, 4, name="judged", judged=True, checkpoint=checkpoint)
        rows = [Sample("p", i, "1" if i else None, i > 2, i > 0, tokens=1000 + i) for i in range(4)]
        summarize(write(folder / "judged", judged, rows))
        plain = manifest(2, 0, greedy=True, name="plain", checkpoint=checkpoint)
        summarize(
            write(folder / "plain", plain, [Sample("p", -1, "1", True, fields={"subset_for_metrics": "one"})])
        )
        for benchmark in ("judged", "plain"):
            os.utime(folder / benchmark / SCORECARD, (0, 1_700_000_000))
    return root


def lines_of(table: str) -> list[list[str]]:
    """The cells of a printed table, its header first."""
    return [
        [cell.strip() for cell in re.split("[│┃]", line)[1:-1]]
        for line in table.splitlines()
        if line[0] in "│┃"
    ]


def test_a_tree_of_results_is_recorded_and_listed(run: Run, results: Path) -> None:
    assert run("record", results) == "6 recorded\n"
    assert run("record", results / "a", results / "b" / "[red]x" / "plain") == "5 unchanged\n"
    assert lines_of(run("history")) == [
        ["training run", "checkpoints", "last step", "evaluations", "last evaluated"],
        ["a", "2", "10", "4", "2023-11-14 22:13"],
        ["b", "1", "", "2", "2023-11-14 22:13"],
    ]
    header, *lines = lines_of(run("history", "a"))
    assert header == [
        *("checkpoint", "step", "benchmark", "mode", "symbolic_correct", "judge_correct", "no_answer"),
        *("avg_tokens", "complete", "evaluated", "fingerprint", "id"),
    ]
    assert [line[:9] for line in lines] == [
        ["step-10", "10", "judged", "pass@1[4]", "25.00%", "75.00%", "25.00%", "1,002", "yes"],
        ["step-10", "10", "plain", "greedy", "100.00%", "n/a", "0.00%", "10", "no"],
        ["step-9", "9", "judged", "pass@1[4]", "25.00%", "75.00%", "25.00%", "1,002", "yes"],
        ["step-9", "9", "plain", "greedy", "100.00%", "n/a", "0.00%", "10", "no"],
    ]
    assert lines[0][-2] == lines[2][-2] != lines[1][-2]


def test_a_listing_is_filtered(run: Run, results: Path) -> None:
    run("record", results)
    assert [line[:3] for line in lines_of(run("history", "a", "--last", 1, "-b", "plain"))[1:]] == [
        ["step-10", "10", "plain"]
    ]
    everywhere = lines_of(run("history", "--benchmark", "plain"))
    assert [line[:2] for line in everywhere] == [
        ["training run", "checkpoint"],
        ["a", "step-10"],
        ["a", "step-9"],
        ["b", "[red]x"],
    ]
    assert "judge_correct" not in everywhere[0]
    fingerprint = everywhere[1][-2]
    assert lines_of(run("history", "--fingerprint", fingerprint)) == everywhere
    assert [line[4] for line in lines_of(run("history", "a", "--mode", "pass@4"))[1:]] == [
        *("100.00%", "n/a", "100.00%", "n/a"),
    ]
    assert "no such evaluation; `evalcore history` lists" in run("history", "c")


def test_fifty_checkpoints_are_listed_unless_more_are_asked_for(run: Run, tmp_path: Path) -> None:
    for step in range(51):
        checkpoint = Checkpoint(path=None, run="a", name=str(step), step=step, digest=str(step))
        folder = write(
            tmp_path / "r" / str(step) / "toy", manifest(1, 1, checkpoint=checkpoint), [Sample("p", 0)]
        )
        summarize(folder)
    assert run("record", tmp_path / "r") == "51 recorded\n"
    assert len(lines_of(run("history", "a"))) == 1 + 50
    assert len(lines_of(run("history", "a", "--last", 60))) == 1 + 51
    assert run("history", "a", "--export", tmp_path / "all.csv").endswith(f": {51 * 3} rows\n")


def test_a_folder_that_cannot_be_recorded_does_not_lose_the_others(run: Run, results: Path) -> None:
    (results / "a" / "step-9" / "plain" / SCORECARD).unlink()
    assert f"{results}/a/step-9/plain: no {SCORECARD}; run `evalcore summarize" in run("record", results)
    assert len(lines_of(run("history", "a"))) == 1 + 3


def test_a_folder_that_is_not_ours_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "ns").mkdir()
    (tmp_path / "ns" / "output-greedy.jsonl").write_text('{"problem": "1+1"}\n')
    assert "NeMo-Skills' results do not say what made them; not recorded" in run("record", tmp_path / "ns")
    (tmp_path / "empty").mkdir()
    assert "no manifest.json" in run("record", tmp_path / "empty")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_an_export_has_every_line_of_every_table(run: Run, results: Path, tmp_path: Path, kind: str) -> None:
    run("record", results)
    file = tmp_path / f"a.{kind}"
    assert run("history", "a", "--export", file) == f"{file}: 14 rows\n"
    if kind == "csv":
        with file.open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        assert (rows[0]["symbolic_correct_std_err"], rows[0]["step"], rows[0]["complete"]) == (
            "",
            "10",
            "True",
        )
    else:
        parquet = pytest.importorskip("pyarrow.parquet")
        table = parquet.read_table(file)
        assert str(table.schema.field("symbolic_correct_std_err").type) == "double"  # though it is unknown
        rows = table.to_pylist()
        assert (rows[0]["symbolic_correct_std_err"], rows[0]["step"], rows[0]["complete"]) == (None, 10, True)
    first = [row for row in rows if row["checkpoint"].startswith("step-10")]
    assert [(row["subset"], row["evaluation_mode"]) for row in first] == [
        *(("judged", mode) for mode in ("majority@4", "pass@4", "pass@1[4]", "pass@2", "majority@2")),
        ("plain-all", "greedy"),
        ("plain-one", "greedy"),
    ]
    assert [float(row["judge_correct"]) for row in first if row["evaluation_mode"] == "pass@1[4]"] == [0.75]
    assert {row["evaluated_at"] for row in rows} == {"2023-11-14T22:13:20+00:00"}
    assert {int(row["generated"]) for row in first} == {4, 1}


def test_what_cannot_be_exported(
    run: Run, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("record", results)
    assert "expected a name that ends in .csv or .parquet" in run("history", "--export", tmp_path / "a.xlsx")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    refused = run("history", "--export", tmp_path / "a.parquet")
    assert "Parquet needs pyarrow, which is not installed: pip install 'evalcore[hub]'" in refused
    assert run("history", "--export", tmp_path / "a.csv").endswith(" rows\n")
    assert not list(tmp_path.glob("*.parquet*"))


def test_alarms_are_listed_with_what_became_of_them(run: Run, tmp_path: Path) -> None:
    assert run("alarms") == "no such alarms\n"
    with open_history(f"sqlite:///{tmp_path}/history.sqlite") as history:
        base, new = (record(history, tmp_path, checkpoint("[red]r", step), [3]) for step in (100, 200))
        alarms = Alarms(history)
        (alarm,) = alarms.raise_([Suspicion(Kind.REGRESSION, new, base, 0.01, 0.05)], held="the stack moved")
        alarms.raise_([Suspicion(Kind.TRUNCATION, new, base, 0.01, 0.05)])
    lines = run("alarms", "[red]r", "--state", "held").splitlines()
    assert [cell.strip() for cell in lines[3].split("│")[1:-1]] == [
        str(alarm.id),
        "held",
        "[red]r",
        "step-200",
        "step-100",
        "toy",
        "regression",
        f"{alarm.raised_at:%Y-%m-%d %H:%M}",
        "the stack moved",
    ]
    assert len(lines) == 5
    assert len(run("alarms").splitlines()) == 6
    with open_history(f"sqlite:///{tmp_path}/history.sqlite") as history:
        Alarms(history).settle(alarm.id, State.CONFIRMED, reason="-50.0 points")
        Alarms(history).acknowledge([alarm.id], by="ada", note="the new tokenizer")
    assert "-50.0 points; by ada the new tokenizer" in run("alarms", "--state", "acknowledged")
    assert run("alarms", "--state", "open").endswith(
        "--state open: expected one of suspected, held, refuted, confirmed, repeated, acknowledged"
    )
