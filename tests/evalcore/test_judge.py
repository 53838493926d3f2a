"""judge against a judge of our own over HTTP, whose answers depend on the question."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orjson
import pytest

from evalcore import config
from evalcore.errors import ConfigError, ResultsError, ServerError
from evalcore.judge import JudgeSummary, judge, parse_verdict
from evalcore.manifest import GENERATIONS, GRADES, JUDGEMENTS, Manifest
from evalcore.records import GREEDY, PartWriter, part_files, read_rows
from judge_server import JudgeServer, running_judge
from synthetic_results import Sample, manifest, write
from waiting import until

VERDICTS = [
    ("Judgement: Yes", True),
    ("Judgement: Yes.", True),
    ("**Judgement**: yes", True),
    ("**Judgement:** No", False),
    ("Judgment: [No]", False),
    ("JUDGEMENT - **NO**", False),
    (r"Judgement: $\boxed{\text{Yes}}$", True),
    ("The judgement is 'no'.", False),
    ("Judgement:\n\nYes", True),
    ("Judgement: No? Half of it fits. Judgement: Yes", True),
    ("Judgement: Yes, at first sight.\nJudgement: No", False),
    ("<think>Judgement: Yes</think>Judgement: No", False),
    ("<think>Judgement: Yes", None),
    ("Yes", None),
    ("Judgement: Not sure", None),
    ("Judgement: Yes or No", None),
    ("Judgement: yes / no", None),
    ("Judgement: Yes or No?\nJudgement: No", False),
    ("Judgement: nothing", None),
    ("Judgement: maybe yes", None),
    ("", None),
]


@pytest.mark.parametrize(("words", "verdict"), VERDICTS)
def test_a_verdict_in_any_usual_dress(words: str, verdict: bool | None) -> None:
    assert parse_verdict(words) is verdict


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with running_judge() as judge_server:
        yield judge_server


def settings(server: JudgeServer, **changes: object) -> config.Judge:
    client = config.JudgeClient(concurrency=4, request_timeout=10, max_retries=2)
    return config.Judge.model_validate(
        {"model": "judge-model", "address": server.address, "client": client, **changes}
    )


def made(folder: Path, answers: list[tuple[str, int, str | None]], expected: str = "7") -> Path:
    """A graded folder; the reference of every problem is the same."""
    made_by = manifest(2, 8)
    made_by.save(folder)
    with (
        PartWriter(folder / GENERATIONS, f"{made_by.generation_id}-0") as generations,
        PartWriter(folder / GRADES, f"{made_by.grading_id}-0") as grades,
    ):
        for problem, sample, answer in answers:
            key = {"problem_id": problem, "sample": sample}
            text = {"problem": f"What is {problem}?", "expected_answer": expected, "generation": "…"}
            generations.write({**key, **text})
            grades.write({**key, "predicted_answer": answer, "symbolic_correct": False, "reason": "text"})
    return folder


def judged(folder: Path) -> dict[tuple[str, int], bool | None]:
    part = Manifest.load(folder).judging_id
    assert part
    return {(r["problem_id"], r["sample"]): r["judge_correct"] for r in read_rows(folder / JUDGEMENTS, part)}


def test_who_comes_second_waits_and_asks_nothing_again(
    tmp_path: Path, server: JudgeServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    folder = made(tmp_path, [("a", 0, "seven"), ("b", 0, "vague")])
    judge(folder, settings(server))
    [part] = (folder / JUDGEMENTS).glob("*.jsonl")
    [first_row, _] = read_rows(folder / JUDGEMENTS, part.stem)
    part.write_bytes(b"")
    with ThreadPoolExecutor() as threads:
        with PartWriter(part.parent, part.stem) as first:
            second = threads.submit(judge, folder, settings(server))
            until(lambda: "waiting for another process" in caplog.text, "the second one")
            first.write(first_row)
        assert second.result(timeout=60).rows == 2
    assert len(part.read_bytes().splitlines()) == 2


def test_it_asks_what_needs_asking_and_once(tmp_path: Path, server: JudgeServer) -> None:
    folder = made(
        tmp_path,
        [
            ("a", 0, "$7$"),
            ("a", 1, None),
            ("a", 2, "7.00"),
            ("a", 3, "seven"),
            ("a", 4, "seven"),
            ("a", 5, "vague"),
            ("a", 6, "endless"),
            ("b", 0, "seven"),
        ],
    )
    summary = judge(folder, settings(server))
    assert summary == JudgeSummary(rows=8, asked=5, skipped=2, yes=2, no=4, unparsable=2)
    assert sorted(server.questions) == ["7.00", "endless", "seven", "seven", "vague"]
    assert judged(folder) == {
        ("a", 0): True,
        ("a", 1): False,
        ("a", 2): True,
        ("a", 3): False,
        ("a", 4): False,
        ("a", 5): None,
        ("a", 6): None,
        ("b", 0): False,
    }
    part = Manifest.load(folder).judging_id
    assert part
    words = {(r["problem_id"], r["sample"]): r["judgement"] for r in read_rows(folder / JUDGEMENTS, part)}
    assert words["a", 2] == "Well. **Judgement**: yes."
    assert words["a", 6] == "not judged: 400 maximum context length is 8"
    # What is written for the rows that were not asked reads back as their verdict.
    assert parse_verdict(words["a", 0]) is True
    assert parse_verdict(words["a", 1]) is False


def test_what_it_sends(tmp_path: Path, server: JudgeServer) -> None:
    judge(made(tmp_path, [("a", 0, "8")]), settings(server, tokens_to_generate=99))
    (body,) = server.requests
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("judge-model", 0, 99)
    text = body["messages"][-1]["content"]
    assert "Problem:\nWhat is a?\n" in text
    assert "Reference answer:\n7\n" in text


@pytest.mark.slow
def test_it_tries_again_and_resumes(tmp_path: Path, server: JudgeServer) -> None:
    folder = made(tmp_path, [("a", i, f"{i}7") for i in range(1, 4)])
    server.failures = 2
    assert judge(folder, settings(server)).yes == 3
    asked = len(server.questions)
    assert judge(folder, settings(server)) == JudgeSummary(3, asked=0, skipped=0, yes=3, no=0, unparsable=0)
    assert len(server.questions) == asked == 3


def test_a_dead_judge_keeps_what_was_answered(tmp_path: Path, server: JudgeServer) -> None:
    folder = made(tmp_path, [("a", 0, "17"), ("a", 1, None), ("a", 2, "27")])
    server.dead_for = "27"
    one_by_one = config.JudgeClient(concurrency=1, max_retries=0)
    with pytest.raises(ServerError, match="401"):
        judge(folder, settings(server, client=one_by_one))
    assert judged(folder) == {("a", 0): True, ("a", 1): False}
    server.dead_for = None
    assert judge(folder, settings(server)).asked == 1
    assert server.questions == ["17", "27"]


def test_more_samples_ask_no_question_again(tmp_path: Path, server: JudgeServer) -> None:
    folder = made(tmp_path, [("a", 0, "17"), ("a", 1, "8")])
    judge(folder, settings(server))
    made(folder, [("a", 2, "17"), ("a", 3, "9"), ("b", 0, "17")])
    summary = judge(folder, settings(server))
    assert summary == JudgeSummary(rows=5, asked=2, skipped=0, yes=3, no=2, unparsable=0)
    assert sorted(server.questions) == ["17", "17", "8", "9"]


def test_killed_at_any_byte_it_goes_on(tmp_path: Path, server: JudgeServer) -> None:
    folder = made(tmp_path, [("a", 0, "17"), ("a", 1, "17"), ("a", 2, None)])
    judge(folder, settings(server))
    whole = judged(folder)
    part_id = Manifest.load(folder).judging_id
    assert part_id
    (part,) = part_files(folder / JUDGEMENTS, part_id)
    content = part.read_bytes()
    for length in range(0, len(content), 7):
        part.write_bytes(content[:length])
        judge(folder, settings(server))
        assert judged(folder) == whole
        assert len(part.read_bytes().splitlines()) == 3


def test_another_judge_judges_anew(tmp_path: Path, server: JudgeServer) -> None:
    folder = made(tmp_path, [("a", 0, "17")])
    judge(folder, settings(server))
    first = Manifest.load(folder)
    judge(folder, settings(server, model="another"))
    assert len(server.questions) == 2
    assert Manifest.load(folder).judging_id != first.judging_id
    judge(folder, settings(server))
    assert Manifest.load(folder) == first
    assert len(server.questions) == 2


def test_errors(tmp_path: Path, server: JudgeServer) -> None:
    with pytest.raises(ConfigError, match=r"set judge\.model="):
        judge(tmp_path, config.Judge())
    with pytest.raises(ConfigError, match=r"unknown prompt 'no/such'; valid: .*judge/math"):
        judge(tmp_path, settings(server, prompt="no/such"))
    manifest(1, 1).save(tmp_path)
    with pytest.raises(ResultsError, match=r"no grades; run `evalcore grade"):
        judge(tmp_path, settings(server))
    ungraded = write(tmp_path / "u", manifest(1, 1), [Sample("a", 0, "1", symbolic="absent")])
    with pytest.raises(ResultsError, match="no grades"):
        judge(ungraded, settings(server))


def test_another_checkpoint_with_the_same_answers_asks_nothing(tmp_path: Path, server: JudgeServer) -> None:
    answers: list[tuple[str, int, str | None]] = [("a", 0, "seven"), ("b", 0, "vague")]
    judge(made(tmp_path / "step-1", answers), settings(server))
    server.questions.clear()
    summary = judge(made(tmp_path / "step-2", [*answers, ("a", 1, "nine")]), settings(server))
    assert server.questions == ["nine"]
    assert summary.asked == 1
    assert judged(tmp_path / "step-2") | {("a", 1): None} == judged(tmp_path / "step-1") | {("a", 1): None}


@pytest.mark.parametrize("changes", [{"model": "another"}, {"tokens_to_generate": 9}, {"temperature": 0.5}])
def test_another_judge_is_asked_anew(tmp_path: Path, server: JudgeServer, changes: dict[str, object]) -> None:
    judge(made(tmp_path / "step-1", [("a", 0, "seven")]), settings(server))
    server.questions.clear()
    assert judge(made(tmp_path / "step-2", [("a", 0, "seven")]), settings(server, **changes)).asked == 1


def test_a_question_that_failed_is_asked_again_elsewhere(tmp_path: Path, server: JudgeServer) -> None:
    judge(made(tmp_path / "step-1", [("a", 0, "endless")]), settings(server))
    server.questions.clear()
    assert judge(made(tmp_path / "step-2", [("a", 0, "endless")]), settings(server)).asked == 1
    assert server.questions == ["endless"]


def test_with_majority_only_the_most_frequent_answers_are_judged(tmp_path: Path, server: JudgeServer) -> None:
    folder = made(
        tmp_path,
        [
            ("a", 0, "seven"),
            ("a", 1, "9"),
            ("a", 2, "9.0"),  # votes with 9
            ("a", 3, None),
            ("b", 0, "vague"),  # a tie
            ("b", 1, "seven"),
        ],
    )
    summary = judge(folder, settings(server), majority=True)
    assert sorted(server.questions) == ["9", "9.0", "seven", "vague"]
    assert set(judged(folder)) == {("a", 1), ("a", 2), ("a", 3), ("b", 0), ("b", 1)}
    assert summary.asked == 4
    server.questions.clear()
    judge(folder, settings(server))  # the rest later
    assert server.questions == ["seven"]


def test_another_prompt_asks_anew_what_another_checkpoint_was_asked(
    tmp_path: Path, server: JudgeServer
) -> None:
    judge(made(tmp_path / "step-1", [("a", 0, "seven")]), settings(server))
    prompt = tmp_path / "strict.yaml"
    user = "Be strict. {problem} {expected_answer}\nStudent's answer:\n{predicted_answer}\n\nExplain."
    prompt.write_bytes(orjson.dumps({"user": user}))
    summary = judge(made(tmp_path / "step-2", [("a", 0, "seven")]), settings(server, prompt=str(prompt)))
    assert summary.asked == 1
    assert server.requests[-1]["messages"][-1]["content"].startswith("Be strict. What is a?")


def test_the_greedy_answer_has_no_vote_on_what_is_judged(tmp_path: Path, server: JudgeServer) -> None:
    folder = made(tmp_path, [("a", GREEDY, "8"), ("a", 0, "8"), ("a", 1, "10")])
    assert judge(folder, settings(server), majority=True).asked == 2
    assert sorted(server.questions) == ["10", "8"]


def test_right_answers_of_any_spelling_are_one_vote(tmp_path: Path, server: JudgeServer) -> None:
    folder = made(tmp_path, [("a", i, answer) for i, answer in enumerate(["7.0", "7.00", "8", "8", "7.000"])])
    [part] = (folder / GRADES).glob("*.jsonl")
    part.write_text(
        "".join(
            line.replace('"symbolic_correct":false', '"symbolic_correct":true') if "7.0" in line else line
            for line in part.read_text().splitlines(keepends=True)
        )
    )
    judge(folder, settings(server), majority=True)
    assert "8" not in server.questions
