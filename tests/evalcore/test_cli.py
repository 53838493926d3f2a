"""The command line as a user meets it: real processes, real checkpoints, real mistakes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from evalcore import arguments, cli, nemo_skills
from evalcore.grading.pool import DEFAULT_TIMEOUT
from evalcore.judge import JudgeSummary
from evalcore.manifest import GENERATIONS
from evalcore.metrics import Estimate
from evalcore.records import PartWriter, read_part
from evalcore.serving.embedded import running
from evalcore.settings import Wandb
from evalcore.summarize import summarize
from synthetic_results import Sample, manifest, write
from tiny_folder import write_checkpoint
from waiting import LONG

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
Refused = Callable[..., str]
CHECKPOINT = ROOT / "include" / "tiny" / "checkpoints" / "step-001800"


def evalcore(*arguments: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "evalcore.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=LONG,
        env={**os.environ, "COLUMNS": "200", **(env or {})},
    )


@pytest.fixture
def refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., str]:
    """The one line that a refused command prints; run in this process, since imports take most of the time."""
    monkeypatch.setenv("EVALCORE_DATA", str(tmp_path / "data"))

    def run(*arguments: object) -> str:
        with pytest.raises(SystemExit) as exit_:
            cli.main(list(map(str, arguments)))
        assert exit_.value.code == 1
        lines = capsys.readouterr().err.splitlines()
        assert [line.startswith("evalcore: error: ") for line in lines].count(True) == 1
        assert lines[-1].startswith("evalcore: error: ")
        return lines[-1]

    return run


VERBS = [
    "prepare",
    "fetch",
    "plan",
    "convert",
    "serve",
    "generate",
    "grade",
    "judge",
    "summarize",
    "track",
    "run",
]
VERBS += ["record", "history", "compare", "profiles", "publish"]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_with_examples(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main([verb, "--help"])
    assert exit_.value.code == 0
    assert re.search(rf"Examples\s+evalcore {verb} ", capsys.readouterr().out)


def test_the_list_of_benchmarks() -> None:
    names = [line.split()[0] for line in evalcore("prepare", "--list").stdout.splitlines()]
    shipped = "gsm8k math-500 aime24 aime25 amc23 comp-math-24-25 hle omni-math minerva-math olympiadbench"
    assert {*shipped.split(), "tiny-arithmetic"} <= set(names)


@pytest.mark.slow
def test_run_is_the_stages_one_by_one_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    options = ["-b", "tiny-arithmetic:2", "--max-problems", "12", "wandb.mode=disabled"]
    whole = evalcore("run", CHECKPOINT, *options, "-o", tmp_path / "a")
    assert whole.returncode == 0, whole.stderr
    assert "pass@2" in whole.stdout
    commands = evalcore("plan", CHECKPOINT, *options, "-o", tmp_path / "b").stdout.splitlines()
    for command in commands:
        assert evalcore(*command.split()[1:]).returncode == 0
    a, b = (tmp_path / x / "tiny" / "step-001800" / "tiny-arithmetic" for x in "ab")
    assert json.loads((a / "scorecard.json").read_text()) == json.loads((b / "scorecard.json").read_text())
    part = next((a / "generations").iterdir())
    assert len(list(read_part(part))) == 36
    before = part.read_bytes()
    again = evalcore("run", CHECKPOINT, *options, "-o", tmp_path / "a")
    assert (again.returncode, part.read_bytes()) == (0, before)
    assert again.stdout == whole.stdout
    markdown = evalcore("summarize", tmp_path / "a", "--markdown")
    assert "| pass@2 | 12 |" in markdown.stdout


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda f: (f / "model.safetensors").unlink(), "no weights; expected model.safetensors"),
        (lambda f: os.truncate(f / "model.safetensors", 100), "truncated"),
        (lambda f: shutil.rmtree(f), "no such folder"),
    ],
)
def test_a_checkpoint_that_is_not_whole(refused: Refused, tmp_path: Path, harm, message: str) -> None:  # type: ignore[no-untyped-def]
    folder = write_checkpoint(tmp_path / "run" / "step-1")
    harm(folder)
    for verb in ("plan", "run", "generate", "convert"):
        error = refused(verb, folder, "-c", "tiny", "-o", tmp_path / "results")
        assert message in error
        assert str(folder) in error
    assert message in refused("serve", folder, "--port", 0)
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-b", "gsm9k"], r"unknown benchmark 'gsm9k'; valid: aime24, .*tiny-arithmetic"),
        (["-b", "tiny-arithmetic:-1"], r"'tiny-arithmetic:-1': samples must be a whole number from 0"),
        (["-c", "huge"], r"unknown suite 'huge'; valid: default, "),
        (["-c", "tiny", "inference.temp=1"], r"unknown key 'inference.temp'; valid: "),
        (["-c", "tiny", "--server-type", "tgi"], r"server.type: .*'embedded', 'vllm'"),
        (["-c", "tiny", "elsewhere"], r"one checkpoint, please, not 2"),
        ([], r"benchmarks: "),
        (["-b", ""], r"--benchmarks '' names none; expected something like gsm8k:4"),
        (["-c", "tiny", "-b", " , "], r"--benchmarks ' , ' names none"),
    ],
)
def test_a_wrong_request(refused: Refused, tmp_path: Path, arguments: list[str], message: str) -> None:
    folder = write_checkpoint(tmp_path / "run" / "step-1")
    assert re.search(message, refused("run", folder, *arguments, "-o", tmp_path / "results"))


def test_a_prompt_with_a_variable_the_problems_lack(refused: Refused, tmp_path: Path) -> None:
    prompt = tmp_path / "mine.yaml"
    prompt.write_text("user: '{question} in {language}'\n")
    error = refused("run", CHECKPOINT, "-c", "tiny", "-o", tmp_path / "r", f"prompt={prompt}")
    assert "question" in error
    assert "problem" in error


def test_a_row_without_an_answer(refused: Refused, tmp_path: Path) -> None:
    source = tmp_path / "mine.jsonl"
    source.write_text('{"problem": "1+1?", "expected_answer": "2"}\n{"problem": "1+2?"}\n')
    error = refused("prepare", "gsm8k", "--source", source)
    assert "mine.jsonl:2" in error
    assert "answer" in error
    assert not list((tmp_path / "data").rglob("*.jsonl"))


def test_a_port_in_use(refused: Refused) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        error = refused("serve", CHECKPOINT, "--port", port)
    assert str(port) in error


@pytest.mark.slow
def test_a_server_that_dies_half_way_loses_nothing(refused: Refused, tmp_path: Path) -> None:
    request = ["-b", "tiny-arithmetic:0", "-o", tmp_path, "--training-run", "r", "wandb.mode=disabled"]

    def part() -> Path:
        return next(tmp_path.rglob("generations/*.jsonl"))

    with running(CHECKPOINT, model_name="m", faults="die:after=40") as address:
        error = refused(
            "run", "--server-address", address, "--model", "m", *request, "client.max_retries=1",
            "client.concurrency=8",
        )  # fmt: skip
    assert address in error
    kept = part().read_bytes()
    assert 0 < kept.count(b"\n") < 240


def test_an_error_is_one_line_whatever_is_in_it(refused: Refused, tmp_path: Path) -> None:
    error = refused("plan", f"{tmp_path}/a\nb\x1b[2J\rc\u2028\u202eé", "-c", "tiny")
    assert error.endswith(r"/a\nb\x1b[2J\rc\u2028\u202eé: no such folder")


@pytest.mark.parametrize("verb", ["grade", "judge", "summarize"])
def test_a_planned_stage_refuses_what_another_evaluation_has_generated(
    refused: Refused, tmp_path: Path, verb: str
) -> None:
    folder = write(tmp_path / "toy", manifest(1, 1), [Sample("a", 0, "1", True)])
    more = ["--model", "m"] if verb == "judge" else []
    error = refused(verb, folder, *more, "--settings", "0123456789ab")
    assert f"{folder}: holds another evaluation now" in error


@pytest.mark.parametrize("flags", [[], ["--majority"]])
def test_majority_of_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str]) -> None:
    asked: list[tuple[Path, object]] = []

    def judge(folder: Path, *_: object, majority: object = None, **__: object) -> JudgeSummary:
        asked.append((folder, majority))
        return JudgeSummary(1, 1, 0, 1, 0, 0)

    monkeypatch.setattr("evalcore.judge.judge", judge)
    folder = write(tmp_path / "toy", manifest(1, 1), [Sample("a", 0, "1", True)])
    with contextlib.suppress(SystemExit):
        cli.main(["judge", str(folder), "--model", "m", *flags])
    assert asked == [(folder, bool(flags))]


def test_track_leaves_out_what_another_evaluation_wrote(refused: Refused, tmp_path: Path) -> None:
    summarize(write(tmp_path / "toy", manifest(1, 1), [Sample("a", 0, "1", True)]))
    assert "no scorecard.json" in refused("track", tmp_path, "--settings", "toy=0123456789ab")
    assert "expected BENCHMARK=ID" in refused("track", tmp_path, "--settings", "toy")


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], Wandb(project="file", entity="team")),
        (["wandb.project=mine"], Wandb(project="mine", entity="team")),
        # What is the default elsewhere has to be said where env.toml says otherwise.
        ([f"wandb.project={Wandb().project}", "wandb.entity=null"], Wandb()),
    ],
)
def test_wandb_of_env_toml_counts_in_a_plan_and_in_the_command_it_prints(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    overrides: list[str],
    expected: Wandb,
) -> None:
    asked = tracking(monkeypatch)
    (tmp_path / "env.toml").write_text('[wandb]\nproject = "file"\nentity = "team"\n')
    monkeypatch.setenv("EVALCORE_ENV_TOML", str(tmp_path / "env.toml"))
    with contextlib.suppress(SystemExit):
        cli.main(["plan", str(CHECKPOINT), "-c", "tiny", "-o", str(tmp_path / "results"), *overrides])
    [command] = [line for line in capsys.readouterr().out.splitlines() if " track " in line]
    for env in (tmp_path / "env.toml", Path(os.devnull)):
        monkeypatch.setenv("EVALCORE_ENV_TOML", str(env))
        with contextlib.suppress(SystemExit):
            cli.main(shlex.split(command)[1:])
    assert asked == [expected, expected]


def test_track_alone_goes_where_env_toml_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = tracking(monkeypatch)
    (tmp_path / "env.toml").write_text('[wandb]\nproject = "file"\nentity = "team"\n')
    monkeypatch.setenv("EVALCORE_ENV_TOML", str(tmp_path / "env.toml"))
    with contextlib.suppress(SystemExit):
        cli.main(["track", str(tmp_path), "wandb.entity=mine"])
    assert asked == [Wandb(project="file", entity="mine")]


def tracking(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The settings that ``evalcore track`` is called with, which then sends nothing."""
    asked: list[object] = []
    monkeypatch.setattr("evalcore.track.track", lambda folder, wandb, planned: asked.append(wandb))
    return asked


def test_workers_and_timeout_of_grade(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(tmp_path, manifest(1, 1), [])
    with PartWriter(folder / GENERATIONS, f"{manifest(1, 1).generation_id}-0") as part:
        row = {"problem_id": "a", "sample": 0, "expected_answer": "1", "generation": r"\boxed{9^{9^{9}}+x}"}
        part.write(row)
    with pytest.raises(SystemExit) as exit_:
        cli.main(["grade", str(folder), "--workers", "1", "--timeout", "0.1"])
    assert exit_.value.code == 0
    assert "undecided=1" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli.main(["grade", "--help"])
    assert f"[default: {DEFAULT_TIMEOUT}]" in capsys.readouterr().out


def test_a_results_folder_that_cannot_be_written(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file where the folder should be")
    error = refused("generate", CHECKPOINT, "-c", "tiny", "-o", tmp_path / "results")
    assert "cannot write" in error


def test_the_installed_command_is_one_line_on_standard_error_too(tmp_path: Path) -> None:
    result = evalcore("plan", tmp_path / "nowhere", "-c", "tiny")
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr == f"evalcore: error: checkpoint {tmp_path}/nowhere: no such folder\n"


def test_equal_writes_its_output_whole_or_not_at_all_even_over_what_it_reads(
    refused: Refused, tmp_path: Path
) -> None:
    file = tmp_path / "pairs.jsonl"
    torn = '{"gold": "1", "pred": "1"}\n{"gold": "2"}\n'
    file.write_text(torn)
    assert f"{file}:2: no pred" in refused("equal", file, "--output", file)
    assert file.read_text() == torn
    file.write_text('{"gold": "1", "pred": "1"}\n')
    with pytest.raises(SystemExit) as exit_:
        cli.main(["equal", str(file), "--output", str(file)])
    assert not exit_.value.code
    assert json.loads(file.read_text())["equal"] is True
    assert list(tmp_path.iterdir()) == [file]


def test_equal_with_a_wrong_option_leaves_the_output_as_it_is(refused: Refused, tmp_path: Path) -> None:
    file, output = tmp_path / "pairs.jsonl", tmp_path / "out.jsonl"
    file.write_text('{"gold": "1", "pred": "1"}\n')
    output.write_text("before\n")
    assert "unknown option" in refused("equal", file, "--output", output, "--option", "bad=1")
    assert output.read_text() == "before\n"


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """NeMo-Skills' results of two benchmarks, the first of which has a line that is no row."""
    row = {"problem": "p", "expected_answer": "D", "generation": "\\boxed{1}\nAnswer: D"}
    for name, lines in (("bad", "7\n"), ("good", json.dumps(row) + "\n")):
        (tmp_path / "eval-results" / name).mkdir(parents=True)
        (tmp_path / "eval-results" / name / "output-rs0.jsonl").write_text(lines)
    return tmp_path


def test_a_bad_folder_of_theirs_does_not_lose_the_others(refused: Refused, theirs: Path) -> None:
    error = refused("grade", theirs, "--grader", "multiple_choice")
    assert "bad/output-rs0.jsonl:1: not a row" in error
    card = nemo_skills.summarize(theirs / "eval-results" / "good")
    assert card.subsets[0].modes[-1].symbolic_correct == Estimate(1.0, None, 1)


def test_a_file_of_theirs_that_cannot_be_opened_does_not_lose_the_others(
    refused: Refused, theirs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = theirs / "eval-results" / "bad" / "output-rs0.jsonl"
    bad.unlink()
    bad.mkdir()
    assert "Is a directory" in refused("grade", theirs, "--grader", "multiple_choice")
    assert (theirs / "eval-results" / "good" / "grades").exists()
    capsys.readouterr()
    with pytest.raises(SystemExit):
        cli.main(["summarize", str(theirs)])
    printed = capsys.readouterr()
    assert "Is a directory" in printed.err
    assert " good " in printed.out


def test_what_does_not_go_with_a_folder_is_refused(refused: Refused, theirs: Path, tmp_path: Path) -> None:
    good = theirs / "eval-results" / "good"
    assert "NeMo-Skills' have none" in refused("grade", good, "--settings", "0" * 12)
    assert "NeMo-Skills' have none" in refused("summarize", good, "--settings", "0" * 12)
    assert "judged by its llm_math_judge" in refused("judge", good, "--model", "gpt")
    assert not (good / "grades").exists()
    ours = tmp_path / "ours"
    assert "its manifest names the grader" in refused("grade", ours, "--grader", "exact")


def test_the_time_limit_of_a_pair_is_the_same_everywhere() -> None:
    assert arguments.PAIR_SECONDS == DEFAULT_TIMEOUT
