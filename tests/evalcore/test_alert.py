"""What an alert says, in each of its forms, and what names from outside cannot do in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from alarmed import ALPHA, MARGIN, confirmed, evaluated, suspected
from evalcore.alert import clean, message
from evalcore.history import open_history
from evalcore.history.alarms import Alarms, Kind, State, Suspicion
from evalcore.history.store import History

pytestmark = pytest.mark.slow

LINKS = {"DAG run": "https://airflow.example.com/dags/d/runs/r", "W&B": "https://wandb.ai/t/p/runs/1"}


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    with open_history(f"sqlite:///{tmp_path}/history.sqlite") as opened:
        yield opened


def test_a_confirmed_regression_is_said_with_both_results(history: History, tmp_path: Path) -> None:
    said = message(history, [confirmed(history, tmp_path)], LINKS)
    assert said.title == "llama/step-1500: worse on toy"
    assert said.text == (
        "llama/step-1500 against llama/step-900: worse on toy by 18.8 points; confirmed on fresh seeds.\n"
        "\n"
        "samples | benchmark | mode      | baseline | new    | difference | bounds           | p       | verdict\n"
        "first   | toy       | pass@1[4] | 81.25%   | 56.25% | -25.00     | [-32.60, -17.40] | 9.5e-07 | regressed\n"
        "fresh   | toy       | pass@1[4] | 81.25%   | 62.50% | -18.75     | [-24.00, -13.20] | 9.5e-07 | regressed\n"
        "\n"
        "toy: the problems that changed most (baseline → new)\n"
        "\n"
        "p10: 8/8 → 4/8\n"
        "p14: 8/8 → 4/8\n"
        "p18: 8/8 → 4/8\n"
        "p2: 8/8 → 4/8\n"
        "p22: 8/8 → 4/8\n"
        "\n"
        "DAG run: https://airflow.example.com/dags/d/runs/r\n"
        "\n"
        "W&B: https://wandb.ai/t/p/runs/1\n"
        "\n"
        "Alarm ids: 1; the DAG acknowledge_alert acknowledges them.\n"
    )


def test_markdown_and_html_say_the_same(history: History, tmp_path: Path) -> None:
    said = message(history, [confirmed(history, tmp_path)], LINKS)
    _, table, heading, flips, *_ = said.text.split("\n\n")
    run, wandb = LINKS.values()
    assert said.markdown == (
        "`llama/step-1500` against `llama/step-900`: worse on `toy` by 18.8 points; confirmed on fresh seeds.\n\n"
        f"```\n{table}\n```\n\n"
        f"{heading.replace('toy', '`toy`')}\n\n"
        f"```\n{flips}\n```\n\n"
        f"[DAG run]({run})\n\n"
        f"[W&B]({wandb})\n\n"
        "Alarm ids: 1; the DAG acknowledge_alert acknowledges them.\n"
    )
    assert said.html == (
        "<p><b>llama/step-1500</b> against <b>llama/step-900</b>: worse on <b>toy</b> by 18.8 points; "
        "confirmed on fresh seeds.</p>\n"
        f"<pre>{table}</pre>\n"
        f"<p>{heading}</p>\n"
        f"<pre>{flips}</pre>\n"
        f'<p>\n<a href="{run}">DAG run</a> · \n<a href="{wandb}">W&amp;B</a>\n</p>\n'
        "<p>Alarm ids: 1; the DAG acknowledge_alert acknowledges them.</p>\n"
    )


def test_what_could_not_be_confirmed_says_why(history: History, tmp_path: Path) -> None:
    said = message(history, [confirmed(history, tmp_path, fresh=False)], {})
    assert "worse on toy by 25.0 points; not confirmed on fresh seeds." in said.text
    assert "\nNote: toy: the cluster is away\n" in said.text
    assert "\nNote: `toy: the cluster is away`\n" in said.markdown
    assert "\n<p>Note: toy: the cluster is away</p>\n" in said.html
    assert "fresh   |" not in said.text


def test_the_canary_and_what_it_holds_back_are_told_apart(history: History, tmp_path: Path) -> None:
    alarms = Alarms(history)
    canary = suspected(history, tmp_path, Kind.CANARY, run="canary")
    moved = alarms.settle(canary.id, State.CONFIRMED)
    alarm = suspected(history, tmp_path)
    held = alarms.settle(alarm.id, State.HELD, reason="the canary moved")
    said = message(history, [held, moved], {})
    assert said.title == (
        "canary/step-1500: the stack has moved: the frozen model's numbers are others on toy and 1 more"
    )
    first, second = (line for line in said.text.splitlines() if "against" in line)
    assert first == (
        "canary/step-1500 against canary/step-900: the stack has moved: the frozen model's numbers are others on toy"
        "; what is found of other models is held back."
    )
    assert second == "llama/step-1500 against llama/step-900: worse on toy by 25.0 points; held back."


def test_several_benchmarks_of_a_checkpoint_are_one_sentence(history: History, tmp_path: Path) -> None:
    alarms = [confirmed(history, tmp_path / name, name=name) for name in ("aime24", "toy")]
    said = message(history, alarms, {})
    assert said.title == "llama/step-1500: worse on aime24, toy"
    assert said.text.splitlines()[0].endswith(
        "on aime24 by 18.8 points, toy by 18.8 points; confirmed on fresh seeds."
    )
    assert "aime24: the problems that changed most" in said.text
    assert "on <b>aime24</b> by 18.8 points, <b>toy</b> by 18.8 points; confirmed" in said.html


def test_what_differs_is_a_sentence_of_its_own(history: History, tmp_path: Path) -> None:
    """Another baseline, or another end: nobody is to take one for the other."""
    seen = confirmed(history, tmp_path)
    unseen = confirmed(history, tmp_path, name="aime24", fresh=False)
    new = evaluated(history, tmp_path, 1500, [2] * 40, name="math-500")
    base = evaluated(history, tmp_path, 600, name="math-500")
    older = Suspicion(Kind.REGRESSION, new, base, margin=MARGIN, alpha=ALPHA)
    unlike = Alarms(history).settle(Alarms(history).raise_([older])[0].id, State.CONFIRMED)
    lines = message(history, [seen, unseen, unlike], {}).text.splitlines()
    assert sorted(line for line in lines if " against " in line) == [
        "llama/step-1500 against llama/step-600: worse on math-500 by 31.2 points; not confirmed on fresh seeds.",
        "llama/step-1500 against llama/step-900: worse on aime24 by 25.0 points; not confirmed on fresh seeds.",
        "llama/step-1500 against llama/step-900: worse on toy by 18.8 points; confirmed on fresh seeds.",
    ]


def test_fresh_samples_that_cannot_be_compared_say_so(history: History, tmp_path: Path) -> None:
    alarm = suspected(history, tmp_path)
    otherwise = evaluated(history, tmp_path / "fresh", 900, temperature=0.7)
    settled = Alarms(history).settle(
        alarm.id, State.CONFIRMED, confirmation=alarm.evaluation, base_confirmation=otherwise
    )
    said = message(history, [settled], {})
    assert "fresh   |" not in said.text
    assert "worse on toy by 25.0 points; not confirmed on fresh seeds." in said.text
    assert "Note: toy: the fresh samples are not compared: sampling.temperature: 0.6, not 0.7" in said.text


@pytest.mark.parametrize(
    ("cut_off", "became", "rate"),
    [
        (2, "confirmed on fresh seeds", "0.00% → 50.00% (p = 4.5e-12)"),
        (0, "not confirmed on fresh seeds", "0.00% → 0.00% (p = 1)"),
    ],
)
def test_a_rate_is_said_with_its_own_numbers(
    history: History, tmp_path: Path, cut_off: int, became: str, rate: str
) -> None:
    of = [
        ("llama", 900, 0),
        ("llama", 1500, 2),
        ("llama+confirm-1", 900, 0),
        ("llama+confirm-1", 1500, cut_off),
    ]
    base, new, base_again, new_again = (
        evaluated(history, tmp_path, step, run=run, cut_off=cut) for run, step, cut in of
    )
    # A margin of 5 points, of cut off answers: the table beside them is of right ones, with the usual margin.
    alarm = Alarms(history).raise_([Suspicion(Kind.TRUNCATION, new, base, margin=0.05, alpha=ALPHA)])[0]
    settled = Alarms(history).settle(
        alarm.id, State.CONFIRMED, confirmation=new_again, base_confirmation=base_again
    )
    said = message(history, [settled], {}).text.splitlines()
    assert said[0] == f"llama/step-1500 against llama/step-900: more answers cut off on toy; {became}."
    assert [line.split(": ", 2)[2] for line in said if line.startswith("Note: ")] == [
        "first samples: truncation 0.00% → 50.00% (p = 4.5e-12)",
        f"fresh samples: truncation {rate}",
    ]
    assert not any("changed most" in line for line in said), "no verdict did"


def test_the_margin_is_the_one_that_was_alarmed_by(history: History, tmp_path: Path) -> None:
    """So that the table does not say ok of what is told as worse, or the other way round."""
    new, base = (
        evaluated(history, tmp_path, step, right) for step, right in ((1500, [3] * 40), (900, [4] * 40))
    )
    wide = {Kind.REGRESSION: "ok", Kind.CANARY: "ok", Kind.LENGTH: "regressed"}
    for kind, verdict in wide.items():
        alarm = Alarms(history).raise_([Suspicion(kind, new, base, margin=0.3, alpha=ALPHA)])[0]
        [row] = [
            line for line in message(history, [alarm], {}).text.splitlines() if line.startswith("first   |")
        ]
        assert row.endswith(f"| {verdict}"), kind


def test_each_of_both_comparisons_stands_there_as_it_was_made(history: History, tmp_path: Path) -> None:
    """The fresh one at its own level: one test, however little of alpha the night had left for the first."""
    good, less = [4] * 6, [3] * 6
    base, new, base_again, new_again = (
        evaluated(history, tmp_path, step, right, run=run)
        for run in ("llama", "llama+confirm-1")
        for step, right in ((900, good), (1500, less))
    )
    alarm = Alarms(history).raise_([Suspicion(Kind.REGRESSION, new, base, margin=MARGIN, alpha=1e-6)])[0]
    settled = Alarms(history).settle(
        alarm.id, State.CONFIRMED, confirmation=new_again, base_confirmation=base_again
    )
    said = message(history, [settled], {}).text
    rows = [line.split(" | ") for line in said.splitlines() if line.startswith(("first", "fresh"))]
    assert [(row[0].strip(), row[-1]) for row in rows] == [("first", "inconclusive"), ("fresh", "regressed")]
    assert "; confirmed on fresh seeds." in said
    as_good = replace(settled, confirmation=base_again)
    assert "; not confirmed on fresh seeds." in message(history, [as_good], {}).text


def test_what_is_not_comparable_any_more_is_told_without_numbers(history: History, tmp_path: Path) -> None:
    template = "{{ messages }}" * 9
    base, new = evaluated(history, tmp_path, 900, chat_template=template), evaluated(history, tmp_path, 1500)
    alarms = Alarms(history).raise_([Suspicion(Kind.REGRESSION, new, base, margin=MARGIN, alpha=ALPHA)])
    assert message(history, alarms, {}).text == (
        "llama/step-1500 against llama/step-900: worse on toy; being confirmed.\n\n"
        f"Note: toy: the first samples are not compared: chat_template: None, not {template}\n\n"
        "Alarm ids: 1; the DAG acknowledge_alert acknowledges them.\n"
    )


def test_every_kind_and_state_is_in_words(history: History, tmp_path: Path) -> None:
    base, new = evaluated(history, tmp_path, 900), evaluated(history, tmp_path, 1500)
    kinds = {
        Kind.REGRESSION: "worse",
        Kind.NO_ANSWER: "fewer answers",
        Kind.TRUNCATION: "cut off",
        Kind.LENGTH: "another length",
        Kind.REPETITION: "repetition",
        Kind.JUDGE_UNPARSABLE: "judgements that cannot be read",
        Kind.SERVER_ERRORS: "server errors",
        Kind.CANARY: "the stack has moved",
    }
    raised = Alarms(history).raise_([Suspicion(kind, new, base, margin=MARGIN, alpha=ALPHA) for kind in Kind])
    for alarm in raised:
        assert kinds[alarm.kind] in message(history, [alarm], {}).title
    states = {
        State.SUSPECTED: "being confirmed",
        State.HELD: "held back",
        State.REFUTED: "not seen again",
        State.REPEATED: "told before",
        State.ACKNOWLEDGED: "acknowledged",
    }
    for state, became in states.items():
        alarm = replace(raised[0], state=state)
        assert f"; {became}" in message(history, [alarm], {}).text.splitlines()[0]


def test_what_somebody_has_to_do_something_about_goes_first(history: History, tmp_path: Path) -> None:
    held = Alarms(history).settle(suspected(history, tmp_path, run="a").id, State.HELD)
    said = message(history, [held, confirmed(history, tmp_path, run="b")], {})
    assert said.title == "b/step-1500: worse on toy and 1 more"
    assert said.text.count("Alarm ids: 1, 2;") == 1


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.found.add(tag)


@pytest.mark.parametrize(
    "problem",
    [
        "```<script>alert(1)</script> {}",
        "`<!channel>` [x](https://evil.example) {}",
        "\x1b[31m\u202e{}\r\nSubject: x",
    ],
)
def test_a_problem_is_no_markup_and_steers_nothing(history: History, tmp_path: Path, problem: str) -> None:
    said = message(history, [confirmed(history, tmp_path, problem=problem)], {})
    tags = Tags()
    tags.feed(said.html)
    assert tags.found == {"p", "b", "pre"}
    *_, block, _ = said.markdown.split("```\n")
    assert len(block.splitlines()) == 5, "one line each, and all of them in one block"
    assert said.markdown.count("`") == 6 + 4 * 3 + 2
    assert not {"\x1b", "\u202e", "\r"} & set(said.text + said.markdown + said.html)
    assert "Subject" not in "".join(line[:7] for line in said.text.splitlines())


def test_names_and_reasons_are_no_markup_either(history: History, tmp_path: Path) -> None:
    steering = "\x1b[31m`<u>\n\u202e"
    alarm = suspected(history, tmp_path, run=f"{steering}run", name=f"{steering}toy")
    reason = f"{steering}{'y' * 600}"
    held = Alarms(history).settle(alarm.id, State.HELD, reason=reason)
    said = message(history, [held], {f"{steering}Log": f"https://host/{steering}"})
    tags = Tags()
    tags.feed(said.html)
    assert tags.found == {"p", "b", "pre", "a"}
    assert not {"\x1b", "\u202e"} & set(said.title + said.text + said.markdown + said.html)
    assert "\n" not in said.title
    assert said.markdown.startswith(
        "`'<u> run/step-1500` against `'<u> run/step-900`: worse on `'<u> toy` by"
    )
    [note] = [line for line in said.text.splitlines() if line.startswith("Note: ")]
    assert note.endswith("y…")
    assert len(note) < 520


def test_a_name_is_no_longer_than_can_be_shown() -> None:
    assert clean("a\ud800b") == "ab", "half of a character, which nobody can send"
    assert clean("a\tb\n c") == "a b c"
    assert clean("x" * 81) == "x" * 79 + "…"
    assert clean("x" * 80) == "x" * 80
