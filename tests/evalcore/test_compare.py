"""Two checkpoints' folders compared: what is comparable, what is said, what is not lost on the way."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from evalcore.cli import app
from evalcore.compare import MARGIN, as_text, compare_folders, compare_recorded, margins_of, sentence
from evalcore.comparison import Verdict
from evalcore.errors import ConfigError, ResultsError
from evalcore.history import open_history
from evalcore.manifest import COUNTS, Manifest
from evalcore.regression.baseline import choose
from evalcore.summarize import summarize
from evalcore.tally import COLUMNS as TABLE
from evalcore.tracked import Baseline
from synthetic_results import CHECKPOINT, Sample, manifest, write

pytestmark = pytest.mark.slow

SAMPLES = 4


def results(
    folder: Path,
    benchmark: str,
    right: Sequence[int],
    *,
    step: int = 1500,
    answered: bool = True,
    tokens: int = 10,
    is_cut: bool = False,
    **changed: Any,
) -> Path:
    """A benchmark's folder in which problem i has ``right[i]`` of SAMPLES samples right.

    answered, is_cut: whether the wrong ones have an answer, and were cut off in a loop.
    """
    checkpoint = CHECKPOINT.model_copy(update={"name": f"step-{step}", "step": step, "digest": f"d{step}"})
    made_by = manifest(len(right), SAMPLES, name=benchmark, checkpoint=checkpoint).model_copy(update=changed)
    rows = [
        Sample(
            f"p{i}",
            s,
            "7" if answered or s < c else None,
            s < c,
            tokens=tokens,
            fields={"finish_reason": "length" if is_cut and s >= c else "stop"},
            repeats=is_cut and s >= c,
        )
        for i, c in enumerate(right)
        for s in range(SAMPLES)
    ]
    place = folder / f"step-{step}" / benchmark
    place.mkdir(parents=True)
    summarize(write(place, made_by, rows))
    return folder / f"step-{step}"


def test_a_drop_is_found_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    base = results(tmp_path, "toy", [4, 3, 4, 2] * 10, step=900)
    new = results(tmp_path, "toy", [4, 1, 2, 2] * 10, step=1800)
    compared = compare_folders(new, base)
    [it] = compared.benchmarks
    assert (compared.verdict, it.mode, it.column) == (Verdict.REGRESSED, "pass@1[4]", "symbolic_correct")
    assert (it.base_value, it.value, it.found.difference) == pytest.approx((0.8125, 0.5625, -0.25))
    assert caplog.messages == [], "that both were asked alike is known"
    text = as_text(compared, flips=3)
    assert text.splitlines()[0] == "tiny/step-1800 against tiny/step-900: regressed on toy by 25.0 points"
    assert "toy       | pass@1[4] | 81.25%   | 56.25% | -25.00" in text
    assert text.endswith("  p1: 3/4 → 1/4\n  p10: 4/4 → 2/4\n  p13: 3/4 → 1/4\n")


def test_the_same_is_ok_and_a_little_is_inconclusive(tmp_path: Path) -> None:
    base = results(tmp_path, "toy", [4, 3, 4, 2] * 10, step=900)
    assert compare_folders(base, base).verdict is Verdict.OK
    new = results(tmp_path, "toy", [3, 3, 4, 3, *[4, 3, 4, 2] * 9], step=1800)
    compared = compare_folders(new, base, margin=0.0)
    assert compared.verdict is Verdict.INCONCLUSIVE
    assert "would settle it" in as_text(compared)
    assert "inconclusive on toy" in as_text(compared)


def test_a_margin_is_a_benchmarks_own(tmp_path: Path) -> None:
    right = [4, 3, 4, 2] * 10
    base, new = tmp_path / "base", tmp_path / "new"
    for name in ("hard", "soft"):
        results(base, name, right)
        results(new, name, [c - 1 for c in right])
    compared = compare_folders(new / "step-1500", base / "step-1500", margins={"soft": 0.3})
    assert {it.benchmark: it.found.verdict for it in compared.benchmarks} == {
        "hard": Verdict.REGRESSED,
        "soft": Verdict.OK,
    }


def test_what_is_not_comparable_is_refused_and_says_in_what(tmp_path: Path) -> None:
    base = results(tmp_path, "toy", [4] * 10, step=900)
    results(tmp_path, "old", [4] * 10, step=900)
    new = results(tmp_path, "toy", [4] * 10, step=1800, server_args=(("--seed", "1"),))
    results(tmp_path, "old", [4] * 10, step=1800)
    results(tmp_path, "more", [4] * 10, step=1800)
    compared = compare_folders(new, base)
    assert [it.benchmark for it in compared.benchmarks] == ["old"]
    assert compared.refused["toy"].startswith("server_args: ")
    assert compared.refused["more"] == f"not in {base}"
    assert compared.verdict is Verdict.INCONCLUSIVE, "not all of it is known to be fine"
    assert "note: toy: not compared: server_args: " in as_text(compared)
    with pytest.raises(ResultsError, match=r"nothing to compare: toy: server_args"):
        compare_folders(new / "toy", base / "toy")


def test_answers_that_are_missing_are_an_alarm_of_their_own(tmp_path: Path) -> None:
    base = results(tmp_path, "toy", [2] * 40, step=900)
    new = results(tmp_path, "toy", [2] * 40, step=1800, answered=False)
    compared = compare_folders(new, base)
    assert compared.verdict is Verdict.OK
    first, *rest = as_text(compared).splitlines()
    assert first == "tiny/step-1800 against tiny/step-900: ok; alarms: no_answer on toy"
    assert [line for line in rest if line.startswith("note")] == [
        "note: toy: no_answer 0.00% → 50.00% (p = 4.5e-12)"
    ]


def test_every_alarm_is_a_note_and_the_fine_ones_are_not(tmp_path: Path) -> None:
    for name, tokens, is_cut in (("toy", 30, True), ("other", 10, False)):
        results(tmp_path, name, [2] * 40, step=900)
        results(tmp_path, name, [2] * 40, step=1800, tokens=tokens, is_cut=is_cut)
    compared = compare_folders(tmp_path / "step-1800", tmp_path / "step-900")
    text = as_text(compared)
    assert text.splitlines()[0].endswith(": ok; alarms: truncation on toy, length on toy, repetition on toy")
    assert text.count("note: ") == 3
    assert "note: toy: length 10 → 30 tokens (p = " in text
    kinds = {it.benchmark: [rate.kind.value for rate in it.rates] for it in compared.benchmarks}
    both = ["no_answer", "truncation", "length", "repetition", "server_errors"]
    assert kinds == {"toy": both, "other": both}


def test_rates_do_not_cost_the_verdict_power(tmp_path: Path) -> None:
    """What is just a regression is one with alarms of all kinds beside it, too."""
    for step, right in ((900, [3] * 20), (1800, [3] * 15 + [2] * 5)):
        results(tmp_path, "toy", right, step=step, tokens=step, is_cut=step == 1800)
    [it] = compare_folders(tmp_path / "step-1800", tmp_path / "step-900", margin=0.0).benchmarks
    assert it.found.p_worse == pytest.approx(1 / 32)
    assert it.found.verdict is Verdict.REGRESSED
    assert it.alarms


def without_rates(folder: Path) -> None:
    """The counts of a benchmark's folder as versions before this one wrote them."""
    content = json.loads((folder / COUNTS).read_text())
    for part in ("greedy", "sampled"):
        content[part] = {name: it for name, it in content[part].items() if name in {*TABLE, "answered"}}
    (folder / COUNTS).write_text(json.dumps(content))


def test_rates_that_an_earlier_version_did_not_count_are_not_compared(tmp_path: Path) -> None:
    base = results(tmp_path, "toy", [2] * 40, step=900)
    new = results(tmp_path, "toy", [2] * 40, step=1800, answered=False, tokens=90, is_cut=True)
    without_rates(base / "toy")
    with open_history(f"sqlite:///{tmp_path}/history.sqlite") as history:
        for folder in (base, new):
            history.record(folder / "toy")
        [newest], [older] = (history.evaluations(run="tiny")[i : i + 1] for i in range(2))
        recorded = compare_recorded(history, [(newest, older)])
    compared = compare_folders(new, base)
    assert recorded == compared
    [it] = compared.benchmarks
    assert [rate.kind.value for rate in it.rates] == ["no_answer"]
    assert sentence(compared).endswith(": ok; alarms: no_answer on toy")


def test_greedy_answers_alone_are_not_compared_with_samples_alone(tmp_path: Path) -> None:
    for step, (samples, greedy) in {900: (0, True), 1800: (2, False)}.items():
        checkpoint = CHECKPOINT.model_copy(
            update={"name": f"step-{step}", "step": step, "digest": f"d{step}"}
        )
        rows = [Sample("p", -1, "7", True)] if greedy else [Sample("p", s, "7", True) for s in range(2)]
        made_by = manifest(1, samples, greedy=greedy, checkpoint=checkpoint)
        summarize(write(tmp_path / f"step-{step}" / "toy", made_by, rows))
    said = "one has greedy answers alone, the other samples alone"
    with pytest.raises(ResultsError, match=said):
        compare_folders(tmp_path / "step-1800", tmp_path / "step-900")
    with open_history(f"sqlite:///{tmp_path}/history.sqlite") as history:
        for folder in sorted(tmp_path.glob("step-*/*")):
            history.record(folder)
        newest, older = history.evaluations(run="tiny")
        assert compare_recorded(history, [(newest, older)]).refused == {"toy": said}


def test_what_is_recorded_compares_as_its_folders_do(tmp_path: Path) -> None:
    for name, before, after in (("toy", 4, 2), ("other", 3, 3)):
        results(tmp_path, name, [before] * 40, step=900)
        results(tmp_path, name, [after] * 40, step=1800, is_cut=name == "toy", tokens=4 * before)
    results(tmp_path, "new", [4] * 5, step=1800)
    with open_history(f"sqlite:///{tmp_path}/history.sqlite") as history:
        for folder in sorted(tmp_path.glob("step-*/*")):
            history.record(folder)
        newest = history.evaluations(run="tiny", last=1)
        older = history.evaluations(run="tiny")
        chosen = [(it, choose(Baseline(kind="previous"), it, older)) for it in newest]
        recorded = compare_recorded(history, chosen)
    by_folder = compare_folders(tmp_path / "step-1800", tmp_path / "step-900")
    assert sorted(recorded.benchmarks, key=lambda it: it.benchmark) == sorted(
        by_folder.benchmarks, key=lambda it: it.benchmark
    )
    assert recorded.verdict is Verdict.REGRESSED
    assert [rate.kind.value for it in recorded.benchmarks for rate in it.alarms][:2] == [
        "truncation",
        "length",
    ]
    assert recorded.refused == {"new": "there is no baseline yet"}


def test_a_problem_without_a_verdict_is_left_out(tmp_path: Path) -> None:
    base = results(tmp_path, "toy", [4, 3, 4, 2] * 10, step=900)
    place = tmp_path / "step-1800" / "toy"
    checkpoint = CHECKPOINT.model_copy(update={"name": "step-1800", "digest": "d1800"})
    rows = [Sample(f"p{i}", s, "7", None if i == 0 else s < 1) for i in range(40) for s in range(SAMPLES)]
    summarize(write(place, manifest(40, SAMPLES, checkpoint=checkpoint), rows))
    compared = compare_folders(place.parent, base)
    assert [pair.problem for pair in compared.benchmarks[0].flipped(2)] == ["p10", "p12"]
    assert "p0:" not in as_text(compared, flips=99)


def test_the_command_prints_it_and_its_exit_code_is_the_verdict(tmp_path: Path) -> None:
    base = results(tmp_path, "toy", [4] * 40, step=900)
    new = results(tmp_path, "toy", [2] * 40, step=1800)
    done = CliRunner().invoke(app, ["compare", str(new), str(base)])
    assert (done.exit_code, done.stdout) == (0, as_text(compare_folders(new, base)))
    done = CliRunner().invoke(app, ["compare", str(new), str(base), "--fail-on-regression"])
    assert done.exit_code == 3
    done = CliRunner().invoke(
        app, ["compare", str(new), str(base), "--margin", "toy=0.6", "--fail-on-regression"]
    )
    assert (done.exit_code, "| ok" in done.stdout) == (0, True)
    done = CliRunner().invoke(app, ["compare", str(new), str(base), "--margin", "nothing=0.6"])
    assert isinstance(done.exception, ConfigError)
    assert str(done.exception) == f"{new} has no benchmark 'nothing'; it has toy"


def test_what_is_advisory_is_no_part_of_the_critical_ones(tmp_path: Path) -> None:
    """Six problems that all got worse: one in 64. Of one critical benchmark that is enough, of four it is not."""
    names = ["a", "b", "c", "d"]
    for name in names:
        results(tmp_path, name, [3] * 6, step=900)
        results(tmp_path, name, [2] * 6 if name == "a" else [3] * 6, step=1800)
    folders = tmp_path / "step-1800", tmp_path / "step-900"
    with open_history(f"sqlite:///{tmp_path}/history.sqlite") as history:
        for place in sorted(tmp_path.glob("step-*/*")):
            history.record(place)
        both = history.evaluations(run="tiny")
        chosen = list(zip(both[:4], both[4:], strict=True))
        for advisory, verdict in (((), Verdict.INCONCLUSIVE), (names[1:], Verdict.REGRESSED)):
            by_folder = compare_folders(*folders, margin=0.0, advisory=advisory)
            assert {it.benchmark: it.found.verdict for it in by_folder.benchmarks}["a"] is verdict
            recorded = compare_recorded(history, chosen, margin=0.0, advisory=advisory)
            assert [it.found for it in recorded.benchmarks] == [it.found for it in by_folder.benchmarks]
    with pytest.raises(ConfigError, match="has no benchmark 'e'; it has a, b, c, d"):
        compare_folders(*folders, advisory=["e"])


def test_a_margin_is_a_benchmarks_own_in_the_history_too(tmp_path: Path) -> None:
    for name in ("hard", "soft"):
        results(tmp_path, name, [3] * 40, step=900)
        results(tmp_path, name, [2] * 40, step=1800)
    with open_history(f"sqlite:///{tmp_path}/history.sqlite") as history:
        for place in sorted(tmp_path.glob("step-*/*")):
            history.record(place)
        both = history.evaluations(run="tiny")
        chosen = list(zip(both[:2], both[2:], strict=True))
        compared = compare_recorded(history, chosen, margins={"soft": 0.3})
    assert {it.benchmark: (it.found.verdict, it.found.margin) for it in compared.benchmarks} == {
        "hard": (Verdict.REGRESSED, MARGIN),
        "soft": (Verdict.OK, 0.3),
    }


def evaluated(folder: Path, step: int, problems: dict[str, int], **asked: Any) -> Path:
    """A folder of problems with so many of SAMPLES samples right, and their greedy answer if more than half are."""
    checkpoint = CHECKPOINT.model_copy(update={"name": f"step-{step}", "step": step, "digest": f"d{step}"})
    made_by = manifest(len(problems), asked.pop("samples", SAMPLES), checkpoint=checkpoint, **asked)
    rows = [
        Sample(name, s, "7", c > 2 if s < 0 else s < c, judge=(c > 2 if s < 0 else s >= c))
        for name, c in problems.items()
        for s in range(-made_by.greedy, made_by.samples)
    ]
    place = folder / f"step-{step}" / "toy"
    place.parent.mkdir()
    summarize(write(place, made_by, rows))
    return place


@pytest.mark.parametrize("greedy_alone", [900, 1800])
def test_where_one_side_has_greedy_answers_alone_those_are_compared(
    tmp_path: Path, greedy_alone: int
) -> None:
    problems = {f"p{i}": 3 for i in range(8)}
    for step in (900, 1800):
        samples = 0 if step == greedy_alone else SAMPLES
        right = problems if step == 900 else dict.fromkeys(problems, 1)
        evaluated(tmp_path, step, right, samples=samples, greedy=True)
    [it] = compare_folders(tmp_path / "step-1800", tmp_path / "step-900").benchmarks
    assert (it.mode, it.base_value, it.value, it.found.verdict) == ("greedy", 1.0, 0.0, Verdict.REGRESSED)
    with open_history(f"sqlite:///{tmp_path}/history.sqlite") as history:
        for folder in sorted(tmp_path.glob("step-*/*")):
            history.record(folder)
        newest, older = history.evaluations(run="tiny")
        assert compare_recorded(history, [(newest, older)]).benchmarks == (it,)


def test_a_judges_verdicts_count_where_the_benchmark_needs_one(tmp_path: Path) -> None:
    """The judge says the contrary of the grader."""
    problems = {f"p{i}": 3 for i in range(8)}
    for step, right in ((900, problems), (1800, dict.fromkeys(problems, 1))):
        evaluated(tmp_path, step, right, judged=True)
    [it] = compare_folders(tmp_path / "step-1800", tmp_path / "step-900").benchmarks
    assert (it.column, it.base_value, it.value) == ("judge_correct", 0.25, 0.75)
    with open_history(f"sqlite:///{tmp_path}/history.sqlite") as history:
        for folder in sorted(tmp_path.glob("step-*/*")):
            history.record(folder)
        newest, older = history.evaluations(run="tiny")
        assert compare_recorded(history, [(newest, older)]).benchmarks == (it,)


@pytest.mark.parametrize(("needs", "judged"), [(True, False), (False, True)])
def test_a_judge_that_nobody_needs_or_asked_decides_nothing(
    tmp_path: Path, needs: bool, judged: bool
) -> None:
    for step, right in ((900, 1), (1800, 3)):
        folder = evaluated(tmp_path, step, {f"p{i}": right for i in range(8)}, judged=judged)
        made_by = Manifest.load(folder)
        benchmark = made_by.benchmark.model_copy(update={"needs_judge": needs})
        made_by.model_copy(update={"benchmark": benchmark}).save(folder)
        assert summarize(folder).judged is judged
    [it] = compare_folders(tmp_path / "step-1800", tmp_path / "step-900").benchmarks
    assert (it.column, it.base_value, it.value) == ("symbolic_correct", 0.25, 0.75)


def test_what_the_new_one_lacks_is_said(tmp_path: Path) -> None:
    for name in ("toy", "lost"):
        base = results(tmp_path, name, [4] * 10, step=900)
    compared = compare_folders(results(tmp_path, "toy", [4] * 10, step=1800), base)
    assert compared.refused == {"lost": f"in {base} alone"}


def test_the_worst_losses_come_first_and_then_the_best_gains(tmp_path: Path) -> None:
    base = results(tmp_path, "toy", [4, 2, 0, 1, 3, 2], step=900)
    new = results(tmp_path, "toy", [3, 0, 1, 4, 3, 0], step=1800)
    [it] = compare_folders(new, base).benchmarks
    assert [pair.problem for pair in it.flipped(9)] == ["p1", "p5", "p0", "p3", "p2"]
    assert [pair.problem for pair in it.flipped(4)] == ["p1", "p5", "p0", "p3"]
    assert [pair.problem for pair in it.flipped(2)] == ["p1", "p5"]


def test_names_do_not_steer_a_terminal(tmp_path: Path) -> None:
    evaluated(tmp_path, 900, {"a\x1b[2J": 4})
    evaluated(tmp_path, 1800, {"a\x1b[2J": 0})
    text = as_text(compare_folders(tmp_path / "step-1800", tmp_path / "step-900"))
    assert ": 4/4 → 0/4" in text
    assert "\x1b" not in text


def test_margins_are_shares() -> None:
    assert margins_of(["0.02", "aime24=0.05"]) == {"": 0.02, "aime24": 0.05}
    for wrong in ("1", "-0.01", "aime24=5", "aime24=", "nan"):
        with pytest.raises(ConfigError, match=f"--margin {wrong}: expected a share"):
            margins_of([wrong])


def test_of_a_folder_of_several_checkpoints_none_is_chosen(tmp_path: Path) -> None:
    for step in (900, 1500):
        results(tmp_path, "toy", [4] * 9, step=step)
    with pytest.raises(
        ResultsError, match=r"toy is there of tiny/step-1500 and tiny/step-900; give the folder"
    ):
        compare_folders(tmp_path, tmp_path / "step-900")


def test_without_scipy_it_is_said_how_to_install_it(tmp_path: Path) -> None:
    code = "import sys; sys.modules['scipy'] = None; from evalcore.cli import main; main(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, "compare", tmp_path, tmp_path], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr == (
        "evalcore: error: a comparison needs scipy, which is not installed: pip install 'evalcore[compare]'\n"
    )


def test_a_judge_that_cannot_be_read_at_all_alarms_too(tmp_path: Path) -> None:
    folders = []
    for step, judged in ((900, True), (1500, None)):
        checkpoint = CHECKPOINT.model_copy(
            update={"name": f"step-{step}", "step": step, "digest": f"d{step}"}
        )
        rows = [Sample(f"p{i}", s, "7", True, judge=judged) for i in range(40) for s in range(SAMPLES)]
        folders.append(tmp_path / f"step-{step}" / "toy")
        folders[-1].mkdir(parents=True)
        summarize(write(folders[-1], manifest(40, SAMPLES, judged=True, checkpoint=checkpoint), rows))
    base, new = folders
    compared = compare_folders(new, base)
    (it,) = compared.benchmarks
    assert (it.found.verdict, [rate.kind for rate in it.alarms]) == (
        Verdict.INCONCLUSIVE,
        ["judge_unparsable"],
    )
    text = as_text(compared)
    assert text.startswith(
        "tiny/step-1500 against tiny/step-900: inconclusive on toy; alarms: judge_unparsable on toy"
    )
    assert "nan" not in text
    with pytest.raises(ResultsError, match="no problem has verdicts under both"):
        compare_folders(new, new)


def test_how_much_is_fine_where_nobody_says_otherwise() -> None:
    """Who changes it changes who is told of what, and what make bench-stats must find."""
    assert MARGIN == 0.005
