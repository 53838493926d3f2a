"""prompts: NeMo-Skills' format, filled once."""

from __future__ import annotations

from pathlib import Path

import pytest

from evalcore.chat_template import ChatTemplate
from evalcore.errors import ConfigError
from evalcore.prompts import Prompt, load_prompt

CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<go>{% endif %}"

FEW_SHOT = r"""
system: "Be brief, {problem} stays."
user: |-
  Box it: \boxed{{}}.

  {examples}{problem}
few_shot_examples:
  prefix: "For example {p}:\n"
  template: "{problem} -> {solution}\n"
  suffix: "Now {s}:\n"
  examples:
    - {problem: "1 {x}", solution: "\\boxed{1}"}
    - {problem: "2", solution: "2"}
"""


def write(tmp_path: Path, text: str, name: str = "mine") -> str:
    file = tmp_path / f"{name}.yaml"
    file.write_text(text)
    return str(file)


def load(tmp_path: Path, text: str) -> Prompt:
    return load_prompt(write(tmp_path, text))


def test_inline_examples(tmp_path: Path) -> None:
    messages = load(tmp_path, FEW_SHOT).messages({"problem": "3 {y} {problem}"})
    assert messages == [
        # As in NeMo-Skills the system text, the prefix and the suffix are sent as they stand.
        {"role": "system", "content": "Be brief, {problem} stays."},
        {
            "role": "user",
            "content": "Box it: \\boxed{}.\n\n"
            "For example {p}:\n1 {x} -> \\boxed{1}\n2 -> 2\nNow {s}:\n3 {y} {problem}",
        },
    ]


def test_examples_as_turns(tmp_path: Path) -> None:
    text = FEW_SHOT.replace('  prefix: "For example {p}:\\n"\n', "").replace('  suffix: "Now {s}:\\n"\n', "")
    text = text.replace('template: "{problem} -> {solution}\\n"', 'template: "{solution}"\n  layout: turns')
    messages = load(tmp_path, text).messages({"problem": "3"})
    assert [(m["role"], m["content"].removeprefix("Box it: \\boxed{}.\n\n")) for m in messages[1:]] == [
        ("user", "1 {x}"),
        ("assistant", "\\boxed{1}"),
        ("user", "2"),
        ("assistant", "2"),
        ("user", "3"),
    ]


def test_without_examples_prefix_and_suffix_are_left_out(tmp_path: Path) -> None:
    text = 'user: "{examples}{problem}"\nfew_shot_examples: {prefix: "A", template: "{problem}", suffix: "B"}'
    assert load(tmp_path, text).messages({"problem": "3"}) == [{"role": "user", "content": "3"}]


def test_an_empty_system_text_is_no_message(tmp_path: Path) -> None:
    # NeMo-Skills' files say `system: ""` where they have none.
    prompt = load(tmp_path, 'few_shot_examples:\nsystem: ""\nuser: "{problem}"')
    assert [m["role"] for m in prompt.messages({"problem": "3"})] == ["user"]


def test_code_tags_are_values(tmp_path: Path) -> None:
    prompt = load(tmp_path, 'user: "{code_begin}{problem}"\ncode_tags: {code_begin: "```python"}')
    assert prompt.messages({"problem": "3"})[0]["content"] == "```python3"


def test_text_through_a_chat_template(tmp_path: Path) -> None:
    prompt = load(tmp_path, 'system: "S"\nuser: "{problem}!"')
    template = ChatTemplate(CHAT, {}, where="a test")
    assert prompt.text({"problem": "{{ 7 * 7 }}"}, template) == "<system>S<user>{{ 7 * 7 }}!<go>"


def test_text_for_a_base_model() -> None:
    text = load_prompt("generic/math-base").text({"problem": "What is {1}?"}, None)
    assert text.count("Problem: ") == 5
    assert text.count("\n\nProblem: ") == 4  # where the suite `pretrain` stops
    assert text.endswith("\n\nProblem: What is {1}?\nSolution:")


def test_values_that_are_no_text(tmp_path: Path) -> None:
    assert load(tmp_path, 'user: "{level}"').messages({"level": 3})[0]["content"] == "3"


def test_a_missing_variable_names_prompt_variable_and_fields(tmp_path: Path) -> None:
    prompt = load(tmp_path, 'user: "{problem} {hint}"')
    with pytest.raises(ConfigError) as caught:
        prompt.messages({"problem": "3", "id": "p"})
    assert (
        str(caught.value) == f"prompt {prompt.name}: no value for {{hint}}; there are: examples, id, problem"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user: x\nusr: y", "unknown key 'usr'; valid: code_tags, few_shot_examples, system, user"),
        ("user: x\nfew_shot_examples: {shots: 3}", "unknown key 'few_shot_examples.shots'; valid: examples,"),
        ("user: x\nfew_shot_examples: {layout: sideways}", "layout: Input should be 'inline' or 'turns'"),
        ("user: x\nfew_shot_examples: {layout: turns, prefix: p}", "no place for a prefix"),
        ("user: x\nfew_shot_examples: {examples: [{a: b}], examples_type: c}", "not both"),
        (
            "user: x\nfew_shot_examples: {examples: [{a: b}], template: y}",
            r"no \{examples\} in the user text",
        ),
        (
            "user: x\nfew_shot_examples: {examples_type: gsm}",
            "unknown examples_type 'gsm'; valid: school-math",
        ),
        ("system: x", "user: Field required"),
        ("user: ''", "user: .*at least 1 character"),
        ("user: 'a {problem'", "user: .*write a literal brace as"),
        ("user: 'a } b'", "user: Single '}'"),
        (r"user: '\boxed{}'", r"\{\} is not the name of a field"),
        ("user: '{problem.__class__}'", "is not the name of a field"),
        ("user: '{problem[0]}'", "is not the name of a field"),
        ("user: '{problem!r}'", "is not the name of a field"),
        ("user: '{problem:>{width}}'", "is not the name of a field"),
        ("- user", "holds no mapping"),
        ("user: [", "unreadable"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_unknown_lists_the_valid_ones() -> None:
    with pytest.raises(
        ConfigError, match=r"unknown prompt 'generic/meth'; valid: generic/default, .*judge/math"
    ):
        load_prompt("generic/meth")


@pytest.mark.parametrize("line", ["{", "[1]"])
def test_a_broken_examples_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    folder = tmp_path / "prompts" / "examples"
    folder.mkdir(parents=True)
    (folder / "broken.jsonl").write_text('{"a": "b"}\n' + line + "\n")
    monkeypatch.setenv("EVALCORE_INCLUDE", str(tmp_path))
    with pytest.raises(ConfigError, match=r"broken\.jsonl:2: "):
        load(tmp_path, "user: '{examples}'\nfew_shot_examples: {examples_type: broken}")


def test_the_digest_is_of_what_is_sent_not_of_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = load(tmp_path, FEW_SHOT)
    assert load_prompt(write(tmp_path, FEW_SHOT, "other")).digest == prompt.digest
    assert load(tmp_path, FEW_SHOT.replace("Box it", "box it")).digest != prompt.digest
    assert load(tmp_path, FEW_SHOT.replace('solution: "2"', 'solution: "3"')).digest != prompt.digest
    folder = tmp_path / "prompts" / "examples"
    folder.mkdir(parents=True)
    monkeypatch.setenv("EVALCORE_INCLUDE", str(tmp_path))
    (folder / "same.jsonl").write_text(
        '{"problem": "1 {x}", "solution": "\\\\boxed{1}"}\n{"problem": "2", "solution": "2"}\n'
    )
    named = FEW_SHOT[: FEW_SHOT.index("  examples:\n")] + "  examples_type: same\n"
    assert load(tmp_path, named).digest == prompt.digest


def test_the_judge_is_asked_for_a_last_line() -> None:
    fields = {"problem": "?", "expected_answer": "1", "predicted_answer": "2"}
    text = load_prompt("judge/math").messages(fields)[-1]["content"]
    assert text.endswith("Judgement: Yes\nJudgement: No")
    assert "\\frac{1}{2}" in text
