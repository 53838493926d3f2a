"""include: names, lookup, and that every suite and prompt we ship loads."""

from __future__ import annotations

from pathlib import Path

import pytest

from evalcore import include
from evalcore.benchmarks import benchmark_names
from evalcore.config import load_config
from evalcore.converters import load_converter
from evalcore.errors import ConfigError
from evalcore.prompts import load_prompt

SUITES = ["default", "nightly", "pretrain", "rl", "sft", "tiny"]


def test_ours_come_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "prompts" / "generic"
    own.mkdir(parents=True)
    (own / "math.yaml").write_text("user: '{problem} Go.'\n")
    (own / "deeper").mkdir()
    (own / "deeper" / "still.yaml").write_text("user: '{problem}'\n")
    monkeypatch.setenv("EVALCORE_INCLUDE", f"{tmp_path / 'nowhere'}:{tmp_path}")
    assert include.find("prompts", "generic/math") == own / "math.yaml"
    assert include.find("prompts", "generic/default") != own / "default.yaml"
    assert "generic/deeper/still" in include.names("prompts")
    assert include.names("prompts").count("generic/math") == 1


def test_a_path_is_taken_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    with pytest.raises(ConfigError, match=r"prompt .*mine\.yaml: no such file"):
        include.find("prompts", str(file))
    file.write_text("user: x\n")
    assert include.find("prompts", str(file)) == file


@pytest.mark.parametrize("name", ["", ".", "..", "../suites/tiny", "generic", "/etc/passwd"])
def test_a_name_is_no_path(name: str) -> None:
    with pytest.raises(ConfigError, match=r"unknown prompt .*; valid: .*generic/math"):
        include.find("prompts", name)


@pytest.mark.parametrize("name", SUITES)
def test_suites_load_and_name_what_there_is(name: str) -> None:
    config = load_config(name, checkpoint="somewhere")
    assert {run.name for run in config.benchmarks} <= set(benchmark_names())
    if config.prompt:
        load_prompt(config.prompt)


def test_no_suite_is_left_untested() -> None:
    assert include.names("suites") == SUITES


def test_converters_load() -> None:
    names = include.names("converters")
    assert [load_converter(name).command[2] for name in names] == ["evalcore.dcp"]


def test_the_tiny_suite() -> None:
    assert [str(run) for run in load_config("tiny", checkpoint="x").benchmarks] == ["tiny-arithmetic:8"]


@pytest.mark.parametrize("name", include.names("prompts"))
def test_prompts_load(name: str) -> None:
    fields = {"problem": "{2} = ?", "expected_answer": "{2}", "predicted_answer": "$\\{2\\}$"}
    text = load_prompt(name).messages(fields)[-1]["content"]
    assert "{2} = ?" in text
    assert "{{" not in text
