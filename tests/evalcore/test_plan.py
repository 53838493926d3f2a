"""The plan: commands that can be run anywhere, and everything wrong found before a job starts."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from distributed_checkpoint import write_distributed
from evalcore import include
from evalcore.config import Judge, load_config, section
from evalcore.errors import CheckpointError, ConfigError, EvalError
from evalcore.plan import Plan, plan
from tiny_folder import write_checkpoint


def planned(tmp_path: Path, **options: Any) -> Plan:
    folder = tmp_path / "run" / "step-1"
    if not folder.exists():
        write_checkpoint(folder)
    options.setdefault("benchmarks", "gsm8k:4,aime24:64,hle:0")
    return plan(load_config(checkpoint=str(folder), results=str(tmp_path / "results"), **options))


def test_one_server_job_per_benchmark_unless_told_otherwise(tmp_path: Path) -> None:
    def benchmarks(num_jobs: int) -> list[str]:
        commands = planned(tmp_path, num_jobs=num_jobs).generate
        return [a.removeprefix("benchmarks=") for c in commands for a in c if a.startswith("benchmarks=")]

    assert benchmarks(-1) == ["gsm8k:4", "aime24:64", "hle:0"]
    assert benchmarks(2) == ["gsm8k:4,hle:0", "aime24:64"]
    assert benchmarks(1) == ["gsm8k:4,aime24:64,hle:0"]
    assert benchmarks(9) == ["gsm8k:4", "aime24:64", "hle:0"]


def test_the_commands_do_not_depend_on_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_checkpoint(tmp_path / "run" / "step-1")
    shutil.copy(include.find("benchmarks", "gsm8k"), tmp_path)
    for name in ("prompt.yaml", "judge.yaml"):
        (tmp_path / name).write_text("user: '{problem}'\n")

    def from_(root: str) -> Plan:
        return plan(
            load_config(
                checkpoint=f"{root}run/step-1",
                results=f"{root}results",
                benchmarks=f"{root}gsm8k.yaml:4,hle:0",
                prompt=f"{root}prompt.yaml",
                judge={"model": "j", "prompt": f"{root}judge.yaml"},
            )
        )

    monkeypatch.chdir(tmp_path)
    relative = from_("")
    assert relative == from_(f"{tmp_path}/")
    arguments = [argument for command in relative.commands() for argument in command]
    assert not [a for a in arguments if "yaml" in a and str(tmp_path) not in a]


def test_a_converter_is_known_before_the_checkpoint_is_there(tmp_path: Path) -> None:
    config = load_config(checkpoint=str(tmp_path / "step-1"), benchmarks="hle:0", converter="nope")
    with pytest.raises(ConfigError, match=r"unknown converter 'nope'; valid: dcp$"):
        plan(config, is_there=False)


def test_each_command_that_needs_it_names_the_converter(tmp_path: Path) -> None:
    write_distributed(tmp_path / "run" / "step-1")
    with pytest.raises(
        CheckpointError, match="a distributed checkpoint, no Hugging Face folder; converter=NAME"
    ):
        planned(tmp_path)
    commands = planned(tmp_path, converter="dcp")
    assert all("converter=dcp" in command for command in (commands.convert, *commands.generate))


def test_a_hugging_face_folder_is_evaluated_as_it_is_whatever_the_converter(tmp_path: Path) -> None:
    assert planned(tmp_path).benchmarks == planned(tmp_path, converter="dcp").benchmarks
    with pytest.raises(ConfigError, match="unknown converter"):
        planned(tmp_path, converter="nope")


def test_nobodys_home(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="path ~nobody-of-that-name/c: there is no such user's home"):
        plan(load_config(checkpoint="~nobody-of-that-name/c", benchmarks="hle:0"))


def test_settings_are_of_what_decides_answers_and_grades(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "benchmarks").mkdir()
    monkeypatch.setenv("EVALCORE_INCLUDE", str(tmp_path))
    file = tmp_path / "benchmarks" / "mine.yaml"
    yaml = "name: mine\nsource: {hub: a/b}\nsplit: test\nsamples: 4\n"
    file.write_text(yaml)

    def settings(**options: Any) -> str:
        options.setdefault("benchmarks", "mine:4")
        return planned(tmp_path, **options).benchmarks[0].settings

    plain = settings()
    assert len(plain) == 12
    same: list[dict[str, Any]] = [
        {"benchmarks": "mine:8"},
        {"benchmarks": "mine", "skip_greedy": True},
        {"split": "test", "prompt": "generic/math"},
        {"server": {"type": "vllm", "gpus": 2, "args": ["--max-num-seqs=8"]}, "num_jobs": 1},
        {"judge": {"tokens_to_generate": 9}, "wandb": {"mode": "disabled"}, "client": {"concurrency": 1}},
    ]
    assert [settings(**options) for options in same] == [plain] * len(same)
    other: list[dict[str, Any]] = [
        {"inference": {"temperature": 1.0}},
        {"convert_to": "hf:float16"},
        {"split": "train"},
        {"max_problems": 3},
        {"prompt": "tiny/arithmetic"},
        {"server": {"args": ["--max-model-len=64"]}},
        {"judge": {"model": "j"}},
        {"judge": {"model": "j", "tokens_to_generate": 9}},
    ]
    found = {plain, *(settings(**options) for options in other)}
    for change in ("grader: exact\n", "fields: {problem: question}\n", "generation: {top_p: 0.5}\n"):
        file.write_text(yaml + change)
        found.add(settings())
    file.write_text(yaml + "description: More of it.\nmetrics: [pass]\njudge: true\n")
    assert settings() == plain
    (tmp_path / "run" / "step-1" / "config.json").write_text('{"architectures": []}')
    found.add(settings())
    assert len(found) == 1 + len(other) + 3 + 1


def test_settings_are_of_a_local_files_content_wherever_it_lies(tmp_path: Path) -> None:
    settings = {}
    for place, expected in (("a", "1"), ("b", "2"), ("c", "1")):
        folder = tmp_path / place
        folder.mkdir()
        (folder / "mine.yaml").write_text("name: mine\nsource: {path: problems.jsonl}\nsamples: 4\n")
        (folder / "problems.jsonl").write_text(
            f'{{"id": "p", "problem": "x?", "expected_answer": "{expected}"}}\n'
        )
        benchmarks = f"{folder / 'mine.yaml'}:4"
        settings[place] = planned(tmp_path, benchmarks=benchmarks).benchmarks[0].settings
    assert settings["a"] == settings["c"] != settings["b"]


def test_with_a_judge_model_every_benchmark_is_judged_without_none(tmp_path: Path) -> None:
    without = planned(tmp_path)
    assert [b.judge for b in without.benchmarks] == [None, None, None]
    judge = {"model": "gpt-4o", "address": "http://j/v1", "client": {"concurrency": 512}}
    judged = planned(tmp_path, judge=judge)
    for benchmark in judged.benchmarks:
        assert benchmark.judge is not None
        its_own = [benchmark.folder, "--settings", benchmark.settings]
        assert benchmark.judge[:5] == ["evalcore", "judge", *its_own]
        assert section(Judge, "judge", benchmark.judge[5:]) == Judge.model_validate(judge)


def test_rendered_commands(tmp_path: Path) -> None:
    made = planned(tmp_path, benchmarks="gsm8k:4", inference={"stop": ["\n\n"]})
    text = made.render().replace(made.benchmarks[0].settings, "ID")
    assert text.replace(str(tmp_path), "/t").splitlines() == [
        "evalcore convert checkpoint=/t/run/step-1 benchmarks=gsm8k:4 results=/t/results"
        " 'inference.stop=[\"\\n\\n\"]'",
        "evalcore generate checkpoint=/t/run/step-1 benchmarks=gsm8k:4 results=/t/results"
        " 'inference.stop=[\"\\n\\n\"]'",
        "evalcore grade /t/results/run/step-1/gsm8k --settings ID",
        "evalcore summarize /t/results/run/step-1/gsm8k --settings ID",
        "evalcore track /t/results/run/step-1 --settings gsm8k=ID",
    ]


def test_wandb_disabled_has_no_track(tmp_path: Path) -> None:
    assert planned(tmp_path, wandb={"mode": "disabled"}).track is None


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"benchmarks": "gsm9k"}, EvalError, r"gsm9k.*valid: .*gsm8k"),
        ({"prompt": "generic/maths"}, ConfigError, r"generic/maths.*valid: .*generic/math"),
        ({"convert_to": "gguf"}, ConfigError, "valid: hf"),
        (
            {"benchmarks": "gsm8k:0", "skip_greedy": True},
            ConfigError,
            "gsm8k: 0 samples and no greedy answer",
        ),
        ({"benchmarks": "tiny-arithmetic", "prompt": "judge/math"}, ConfigError, "predicted_answer"),
        ({"judge": {"model": "m", "prompt": "judge/x"}}, ConfigError, "judge/x"),
    ],
)
def test_what_is_wrong_is_found_here(
    tmp_path: Path, options: dict[str, Any], kind: type[EvalError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        planned(tmp_path, **options)


def test_an_incomplete_checkpoint_is_found_here(tmp_path: Path) -> None:
    planned(tmp_path)
    (tmp_path / "run" / "step-1" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no weights"):
        planned(tmp_path)


def test_a_benchmark_named_by_name_and_by_path_is_named_twice(tmp_path: Path) -> None:
    again = include.find("benchmarks", "tiny-arithmetic")
    with pytest.raises(ConfigError, match="named twice: tiny-arithmetic"):
        planned(tmp_path, benchmarks=f"tiny-arithmetic:1,{again}:1")


@pytest.mark.parametrize("url", ["hf://org/repo@step1000", "wandb://team/llama/c:v3", "s3://bucket/step-1"])
def test_what_is_no_folder_is_said_to_be_none(url: str) -> None:
    with pytest.raises(CheckpointError, match=f"checkpoint {url}: no folder; `evalcore fetch {url}` makes"):
        plan(load_config("tiny", checkpoint=url))
