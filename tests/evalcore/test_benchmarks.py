"""benchmarks: the YAML, and what is wrong with rows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from evalcore.benchmarks import (
    Benchmark,
    Problem,
    ProblemSet,
    benchmark_names,
    load_benchmark,
    problems_of,
    read_jsonl,
)
from evalcore.errors import BenchmarkError, ConfigError
from evalcore.prepare import prepare
from evalcore.prompts import load_prompt

SHIPPED = [
    "aime24",
    "aime25",
    "amc23",
    "comp-math-24-25",
    "gsm8k",
    "hle",
    "math-500",
    "minerva-math",
    "olympiadbench",
    "omni-math",
    "tiny-arithmetic",
]


def row(n: int, **other: Any) -> dict[str, Any]:
    return {"id": f"p-{n}", "problem": f"{n}?", "expected_answer": str(n), **other}


def placed(*rows: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(f"rows.jsonl:{number}", row) for number, row in enumerate(rows, 1)]


class TestShipped:
    def test_names(self) -> None:
        assert [name for name in benchmark_names() if name in SHIPPED] == SHIPPED

    @pytest.mark.parametrize("name", SHIPPED)
    def test_loads_with_its_prompt(self, name: str) -> None:
        benchmark = load_benchmark(name)
        assert benchmark.name == name
        assert benchmark.description
        prompt = load_prompt(benchmark.prompt)
        assert (
            "what is it" in prompt.messages({"problem": "what is it", "expected_answer": "?"})[-1]["content"]
        )

    @pytest.mark.parametrize("name", [name for name in SHIPPED if name != "tiny-arithmetic"])
    def test_hub_sources_map_the_answer(self, name: str) -> None:
        # No dataset of the hub calls its answer expected_answer; a forgotten mapping is found here.
        benchmark = load_benchmark(name)
        for source in benchmark.source:
            assert re.fullmatch(r"[\w-]+/[\w.-]+", source.hub or "")
            assert {"problem", "expected_answer"} <= {**benchmark.fields, **source.fields}.keys()

    def test_subsets_of_comp_math(self) -> None:
        labels = [source.label for source in load_benchmark("comp-math-24-25").source]
        assert labels == ["aime24", "aime25", "hmmt-24-25", "hmmt-24-25"]

    def test_tiny_arithmetic(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("EVALCORE_DATA", str(tmp_path))
        problems = prepare("tiny-arithmetic")
        assert len(problems) >= 200
        assert all(problem.subset and problem.expected_answer.isdigit() for problem in problems.problems)
        few = problems.first(3)
        assert few.problems == problems.problems[:3]
        assert few.digest != problems.digest
        assert problems.first(10**6) == problems.first(None) == problems


class TestYaml:
    @pytest.fixture
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        folder = tmp_path / "benchmarks"
        folder.mkdir()
        monkeypatch.setenv("EVALCORE_INCLUDE", str(tmp_path))
        return folder

    def load(self, folder: Path, content: object, name: str = "mine") -> Benchmark:
        (folder / "mine.yaml").write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return load_benchmark(name)

    def test_unknown_lists_the_valid_ones(self) -> None:
        with pytest.raises(ConfigError, match=r"unknown benchmark 'gsm9k'; valid: aime24, .*tiny-arithmetic"):
            load_benchmark("gsm9k")

    def test_by_path(self, folder: Path) -> None:
        self.load(folder, {"name": "mine", "source": {"path": "rows.jsonl"}})
        benchmark = load_benchmark(str(folder / "mine.yaml"))
        assert benchmark.source[0].path == str(folder / "rows.jsonl")

    def test_a_team_may_replace_one_of_ours(self, folder: Path) -> None:
        (folder / "gsm8k.yaml").write_text("name: gsm8k\nsource: {path: own.jsonl}\n")
        assert load_benchmark("gsm8k").source[0].hub is None
        assert benchmark_names().count("gsm8k") == 1

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (
                {"name": "mine", "source": {"path": "a"}, "metric": 1},
                "unknown key 'metric'; valid: .*grader",
            ),
            (
                {"name": "mine", "source": {"hub": "b/c", "confg": "d"}},
                "unknown key 'source.0.confg'; valid: config, fields, hub",
            ),
            (
                {
                    "name": "mine",
                    "source": {"path": "a"},
                    "fields": {"problem": {"column": "q", "aftr": "#"}},
                },
                "unknown key 'fields.problem.aftr'; valid: after, column, join, remove",
            ),
            ({"name": "mine", "source": {"path": "a", "hub": "b/c"}}, "either path or hub"),
            ({"name": "mine", "source": {}}, "either path or hub"),
            ({"name": "mine", "source": {"path": "a", "config": "b"}}, "belong to hub"),
            ({"name": "mine", "source": []}, "source: .*at least 1"),
            ({"name": "mine"}, "source: Field required"),
            ({"name": "mine", "source": {"path": "a"}, "samples": -1}, r"samples: .*got -1"),
            (
                {"name": "mine", "source": {"path": "a"}, "grader": "llm"},
                "grader: .*'math', 'multiple_choice'",
            ),
            ({"name": "mine", "source": {"path": "a"}, "split": "../x"}, "'../x' must be letters"),
            ({"name": "other", "source": {"path": "a"}}, "names itself 'other'"),
            ("just text", "holds no mapping"),
            ("a: [", "unreadable"),
        ],
    )
    def test_what_is_wrong_is_one_line(self, folder: Path, content: object, message: str) -> None:
        with pytest.raises(ConfigError, match=message) as caught:
            self.load(folder, content)
        assert "\n" not in str(caught.value)


class TestRows:
    def test_answers_become_text(self) -> None:
        problems = problems_of(
            placed(row(1, expected_answer=7), row(2, expected_answer=0.5, level=3)), "rows"
        )
        assert [p.expected_answer for p in problems] == ["7", "0.5"]
        assert problems[1].fields["level"] == 3

    @pytest.mark.parametrize(
        ("bad", "message"),
        [
            (
                row(2, expected_answer=None),
                r"rows.jsonl:2: id 'p-2' has no usable expected_answer \(got None\)",
            ),
            (row(2, expected_answer="  "), "id 'p-2' has no usable expected_answer"),
            (row(2, expected_answer=["2"]), r"no usable expected_answer \(got \['2'\]\)"),
            (row(2, expected_answer=True), "no usable expected_answer"),
            (row(2, expected_answer=float("nan")), "no usable expected_answer"),
            ({"id": "p-2", "problem": "?"}, "no usable expected_answer"),
            (row(2, problem=""), "id 'p-2' has no usable problem"),
            (row(2, problem={"text": "x" * 900}), r"no usable problem \(got .{60}\)$"),
            (row(1), r"rows.jsonl:2: id 'p-1' is there twice, first at rows.jsonl:1"),
            ({"problem": "?", "expected_answer": "1"}, "rows.jsonl:2: a row without id"),
        ],
    )
    def test_a_bad_row_names_place_and_id(self, bad: dict[str, Any], message: str) -> None:
        with pytest.raises(BenchmarkError, match=message):
            problems_of(placed(row(1), bad), "rows")

    def test_no_rows(self) -> None:
        with pytest.raises(BenchmarkError, match="benchmark x: no problems"):
            problems_of([], "benchmark x")

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            (b'{"id": 1', r"rows.jsonl:3: unreadable line"),
            (b"[1]", "rows.jsonl:3: not a JSON object"),
            (b'{"id": "\xff"}', "rows.jsonl:3: unreadable line"),
        ],
    )
    def test_unreadable_lines(self, tmp_path: Path, line: bytes, message: str) -> None:
        file = tmp_path / "rows.jsonl"
        file.write_bytes(json.dumps(row(1)).encode() + b"\n\n" + line + b"\n")
        with pytest.raises(BenchmarkError, match=message):
            list(read_jsonl(file))

    def test_the_digest_is_that_of_the_problems_in_order(self) -> None:
        a, b = Problem("a", {"problem": "1", "expected_answer": "2"}), Problem("b", {"problem": "3"})
        digest = ProblemSet.of("x", "test", [a, b]).digest
        assert len(digest) == 64
        same = Problem("a", {"expected_answer": "2", "problem": "1"})  # the order of the keys is nothing
        assert ProblemSet.of("y", "train", [same, b]).digest == digest
        assert ProblemSet.of("x", "test", [b, a]).digest != digest
        changed = Problem("a", {"problem": "1", "expected_answer": "3"})
        assert ProblemSet.of("x", "test", [changed, b]).digest != digest
