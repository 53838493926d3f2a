from __future__ import annotations

import fcntl
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from evalcore.checkpoints import load_checkpoint
from evalcore.config import EvalConfig, load_config
from evalcore.errors import EvalError, ResultsError, ServerError
from evalcore.generate import Generated, first_seed, generate, missing_runs
from evalcore.grade import grade
from evalcore.manifest import GENERATIONS, Judging, Manifest, PromptInfo
from evalcore.records import GREEDY, Key, KeySet, PartWriter, Row, key_of, read_rows
from evalcore.serving.embedded import running
from evalcore.summarize import Scorecard, summarize
from waiting import LONG, until

pytestmark = pytest.mark.slow

TINY = Path(__file__).parents[2] / "include/tiny"
# The late one of the training run: it is right more often than not.
CHECKPOINT = sorted((TINY / "checkpoints").iterdir())[1]
RUN = load_checkpoint(CHECKPOINT).run
NOBODY = "http://127.0.0.1:9/v1"
PROBLEMS = 6


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with running(CHECKPOINT) as address:
        yield address


@pytest.fixture(scope="module")
def uninterrupted(server: str, tmp_path_factory: pytest.TempPathFactory) -> dict[Key, Row]:
    """The rows of an evaluation in one go: 6 problems, greedy and 3 samples."""
    results = tmp_path_factory.mktemp("uninterrupted")
    generate(config(results, server))
    return rows(results)


def config(results: Path, address: str, benchmarks: str = "tiny-arithmetic:3", **options: Any) -> EvalConfig:
    defaults: dict[str, Any] = {
        "checkpoint": str(CHECKPOINT),
        "max_problems": PROBLEMS,
        "server": {"type": "openai", "address": address},
        "client": {"concurrency": 8, "max_retries": 2},
    }
    return load_config(benchmarks=benchmarks, results=str(results), **(defaults | options))


def folder_of(results: Path, benchmark: str = "tiny-arithmetic") -> Path:
    return results / RUN / CHECKPOINT.name / benchmark


def rows(results: Path, benchmark: str = "tiny-arithmetic") -> dict[Key, Row]:
    folder = folder_of(results, benchmark)
    part = Manifest.load(folder).generation_id
    return {key_of(row): row for row in read_rows(folder / GENERATIONS, part)}


def without_tokens(found: dict[Key, Row]) -> dict[Key, Row]:
    """Of samples asked together only the sum of their tokens is known, so each count depends on the grouping."""
    return {key: row | {"num_generated_tokens": None} for key, row in found.items()}


def lines(results: Path) -> int:
    [part] = (folder_of(results) / GENERATIONS).glob("*.jsonl")
    return part.read_bytes().count(b"\n")


def test_every_answer_once_and_greedy_as_transformers(uninterrupted: dict[Key, Row]) -> None:
    ids = [f"tiny-arithmetic-{i}" for i in range(PROBLEMS)]
    reference = (TINY / "reference" / f"{CHECKPOINT.name}.jsonl").read_text().splitlines()[:PROBLEMS]

    assert set(uninterrupted) == {(i, sample) for i in ids for sample in range(GREEDY, 3)}
    assert [uninterrupted[i, GREEDY]["generation"] for i in ids] == [json.loads(r)["text"] for r in reference]


def test_row(uninterrupted: dict[Key, Row]) -> None:
    row = uninterrupted["tiny-arithmetic-0", 2]

    assert list(row) == [
        "problem_id", "sample", "problem", "expected_answer", "subset_for_metrics", "generation",
        "num_generated_tokens", "finish_reason", "seed",
    ]  # fmt: skip
    assert row["problem"].endswith("?")
    assert row["expected_answer"].isdecimal()
    assert (row["seed"], row["finish_reason"]) == (first_seed(0, row["problem_id"]) + 2, "stop")
    assert uninterrupted["tiny-arithmetic-0", GREEDY]["seed"] is None


def test_manifest(server: str, tmp_path: Path) -> None:
    overrides = ["inference.temperature=0.5", 'inference.stop=["\\n\\n"]', "inference.seed=100"]
    generate(config(tmp_path, server, "tiny-arithmetic:1", overrides=overrides, max_problems=2))
    manifest = Manifest.load(folder_of(tmp_path))

    assert (manifest.sampling.temperature, manifest.sampling.stop) == (0.5, ("\n\n",))
    assert (manifest.samples, manifest.greedy, manifest.benchmark.num_problems) == (1, True, 2)
    assert (manifest.server.type, manifest.server.model) == ("openai", CHECKPOINT.name)
    assert manifest.chat_template
    assert rows(tmp_path)["tiny-arithmetic-1", 0]["seed"] == first_seed(100, "tiny-arithmetic-1")


def test_what_is_complete_is_not_asked_again(
    server: str, uninterrupted: dict[Key, Row], tmp_path: Path
) -> None:
    first = generate(config(tmp_path, server))
    again = generate(config(tmp_path, NOBODY))  # nobody is asked

    folder = folder_of(tmp_path)
    assert first == [Generated("tiny-arithmetic", folder, samples=24, new=24, errors=0)]
    assert again == [Generated("tiny-arithmetic", folder, samples=24, new=0, errors=0)]
    assert rows(tmp_path) == uninterrupted
    assert str(first[0]) == f"tiny-arithmetic: 24 samples, 24 new: {folder}"
    assert Manifest.load(folder).server.model == CHECKPOINT.name


def test_more_samples_ask_the_missing_ones_and_fewer_keep_them(server: str, tmp_path: Path) -> None:
    generate(config(tmp_path, server, "tiny-arithmetic:1"))
    [more] = generate(config(tmp_path, server, "tiny-arithmetic:5"))
    [fewer] = generate(config(tmp_path, NOBODY, "tiny-arithmetic:2"))

    assert (more.samples, more.new) == (6 * PROBLEMS, 4 * PROBLEMS)
    assert (fewer.samples, fewer.new) == (3 * PROBLEMS, 0)
    assert Manifest.load(folder_of(tmp_path)).samples == 2
    assert lines(tmp_path) == 6 * PROBLEMS


def test_grouping_changes_nothing_but_token_counts(
    server: str, uninterrupted: dict[Key, Row], tmp_path: Path
) -> None:
    generate(config(tmp_path, server, client={"group_samples": False}))

    assert without_tokens(rows(tmp_path)) == without_tokens(uninterrupted)


def test_skip_greedy(server: str, uninterrupted: dict[Key, Row], tmp_path: Path) -> None:
    generate(config(tmp_path, server, skip_greedy=True))

    assert rows(tmp_path) == {key: row for key, row in uninterrupted.items() if key[1] != GREEDY}


def test_nothing_to_ask(server: str, tmp_path: Path) -> None:
    with pytest.raises(EvalError, match=r"tiny-arithmetic: 0 samples and no greedy answer .*nothing to ask"):
        generate(config(tmp_path, server, "tiny-arithmetic:0", skip_greedy=True))


def test_greedy_and_samples_asked_for_apart_are_one_evaluation(server: str, tmp_path: Path) -> None:
    def asked(benchmarks: str, **options: object) -> tuple[int, bool]:
        generate(config(tmp_path, server, benchmarks, max_problems=2, **options))
        manifest = Manifest.load(next(tmp_path.rglob("manifest.json")).parent)
        return manifest.samples, manifest.greedy

    assert asked("tiny-arithmetic:0") == (0, True)
    assert asked("tiny-arithmetic:3", skip_greedy=True) == (3, True)
    assert asked("tiny-arithmetic:2", skip_greedy=True) == (2, True)
    assert asked("tiny-arithmetic:0") == (2, True)
    assert len(rows(tmp_path)) == 2 * (1 + 3)


def test_a_server_that_does_not_start_leaves_no_older_numbers_standing(server: str, tmp_path: Path) -> None:
    generate(config(tmp_path, server, "tiny-arithmetic:0", max_problems=2))
    folder = next(tmp_path.rglob("manifest.json")).parent
    grade(folder)
    summarize(folder)
    dead = {"type": "embedded", "args": ["--no-such-option"]}
    with pytest.raises(EvalError, match=r"2 of 2 benchmarks failed: no-such: .*embedded server died"):
        generate(
            load_config(
                checkpoint=str(CHECKPOINT), results=str(tmp_path), benchmarks="no-such,tiny-arithmetic:0",
                max_problems=2, server=dead, inference={"tokens_to_generate": 9},
            )
        )  # fmt: skip
    with pytest.raises(ResultsError, match="no generations"):
        grade(folder)
    with pytest.raises(ResultsError, match="other settings"):
        Scorecard.load(folder)


def test_failed_benchmark_does_not_lose_the_others(server: str, tmp_path: Path) -> None:
    with pytest.raises(
        EvalError, match=r"^1 of 2 benchmarks failed: no-such: unknown benchmark.*valid: "
    ) as e:
        generate(config(tmp_path, server, "no-such,tiny-arithmetic:0"))

    assert "\n" not in str(e.value)
    assert len(rows(tmp_path)) == PROBLEMS


def test_text_endpoint_asks_the_same(server: str, uninterrupted: dict[Key, Row], tmp_path: Path) -> None:
    generate(config(tmp_path, server, inference={"endpoint": "completions"}))

    assert {key: row["generation"] for key, row in rows(tmp_path).items()} == {
        key: row["generation"] for key, row in uninterrupted.items()
    }


def test_base_model_without_chat_template(server: str, tmp_path: Path) -> None:
    base = tmp_path / "base" / "step-1"
    shutil.copytree(CHECKPOINT, base)
    settings = json.loads((base / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (base / "tokenizer_config.json").write_text(json.dumps(settings))
    (base / "chat_template.jinja").unlink(missing_ok=True)
    chat = config(tmp_path, server, checkpoint=str(base))
    text = config(tmp_path, server, checkpoint=str(base), inference={"endpoint": "completions"})

    with pytest.raises(EvalError, match=r"has no chat template; .* inference\.endpoint=completions"):
        generate(chat)
    [done] = generate(text)

    assert done.new == 4 * PROBLEMS
    assert Manifest.load(done.folder).chat_template is None


def test_what_cannot_be_answered_is_recorded(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks/long.yaml").write_text(
        "name: long\nsource: {path: long.jsonl}\nprompt: tiny/arithmetic\ngeneration: {tokens_to_generate: 16}\n"
    )
    problems = [
        {"id": "short", "problem": "Mia has 2 pens.", "expected_answer": "2"},
        {"id": "long", "problem": "pens " * 5000, "expected_answer": "2"},
    ]
    (tmp_path / "benchmarks/long.jsonl").write_text("\n".join(map(json.dumps, problems)))
    monkeypatch.setenv("EVALCORE_INCLUDE", str(tmp_path))

    [done] = generate(config(tmp_path, server, "long:2"))

    found = rows(tmp_path, "long")
    assert (done.samples, done.new, done.errors) == (6, 6, 3)
    assert "3 of them cannot be answered" in str(done)
    assert [found["long", s]["generation"] for s in (GREEDY, 0, 1)] == ["", "", ""]
    assert "context" in found["long", 1]["error"]
    assert "error" not in found["short", 1]


def test_judging_of_the_same_rows_is_kept(server: str, tmp_path: Path) -> None:
    generate(config(tmp_path, server))
    folder = folder_of(tmp_path)
    judging = Judging(
        model="m", prompt=PromptInfo(name="p", digest="d"), temperature=0.0, tokens_to_generate=8
    )
    Manifest.load(folder).model_copy(update={"judging": judging}).save(folder)

    generate(config(tmp_path, NOBODY))
    assert Manifest.load(folder).judging == judging
    generate(config(tmp_path, server, inference={"temperature": 0.3}))
    assert Manifest.load(folder).judging is None


def test_who_comes_second_waits_and_asks_only_what_the_first_has_left(
    server: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    generate(config(tmp_path, server, "tiny-arithmetic:0"))
    generated = rows(tmp_path).values()
    [part] = (folder_of(tmp_path) / GENERATIONS).glob("*.jsonl")
    part.write_bytes(b"")
    with ThreadPoolExecutor() as threads:
        with PartWriter(part.parent, part.stem) as first:
            second = threads.submit(generate, config(tmp_path, NOBODY, "tiny-arithmetic:0"))
            until(lambda: "waiting for another process" in caplog.text, "the second one")
            for row in generated:
                first.write(row)
        [done] = second.result(timeout=60)
    assert (done.samples, done.new) == (PROBLEMS, 0)


def test_two_that_share_benchmarks_take_them_in_one_order(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    (tmp_path / "benchmarks").mkdir()
    problem = json.dumps({"id": "sum", "problem": "1 + 1?", "expected_answer": "2"})
    for name in ("a", "b"):
        (tmp_path / f"benchmarks/{name}.yaml").write_text(
            f"name: {name}\ndescription: one sum\nsource: {{path: {name}.jsonl}}\nprompt: tiny/arithmetic\n"
            "grader: math\nsamples: 0\ngeneration: {tokens_to_generate: 8}\n"
        )
        (tmp_path / f"benchmarks/{name}.jsonl").write_text(problem + "\n")
    monkeypatch.setenv("EVALCORE_INCLUDE", str(tmp_path))
    done = generate(config(tmp_path, server, "b,a"))
    assert [one.benchmark for one in done] == ["b", "a"]
    [a], [b] = ((folder_of(tmp_path, name) / GENERATIONS).glob("*.jsonl") for name in ("a", "b"))
    with ThreadPoolExecutor() as threads:
        with PartWriter(a.parent, a.stem):
            second = threads.submit(generate, config(tmp_path, server, "b,a"))
            until(lambda: f"which writes {a}" in caplog.text, "the second one to wait")
            with b.open() as stream:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody has it
        assert len(second.result(timeout=60)) == 2


def test_server_that_dies_half_way(server: str, uninterrupted: dict[Key, Row], tmp_path: Path) -> None:
    with running(CHECKPOINT, faults="die:after=8") as dying, pytest.raises(ServerError, match=dying):
        generate(config(tmp_path, dying, client={"concurrency": 2, "max_retries": 1}))
    kept = lines(tmp_path)
    [done] = generate(config(tmp_path, server))

    assert 0 < kept < 24
    assert done.new == 24 - kept
    assert rows(tmp_path) == uninterrupted
    assert lines(tmp_path) == 24


def test_model_behind_an_address_without_a_checkpoint(server: str, tmp_path: Path) -> None:
    asked = {"type": "openai", "address": server, "model": CHECKPOINT.name}
    [done] = generate(config(tmp_path, server, checkpoint=None, server=asked))

    assert done.folder == tmp_path / "models" / CHECKPOINT.name / "tiny-arithmetic"
    assert Manifest.load(done.folder).checkpoint.path is None


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow), 37])
def test_torn_at_every_byte_of_the_last_line(
    step: int, server: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small = {"max_problems": 1, "client": {"concurrency": 1}, "inference": {"tokens_to_generate": 4}}
    generate(config(tmp_path, server, "tiny-arithmetic:1", **small))
    expected = rows(tmp_path)
    [part] = (folder_of(tmp_path) / GENERATIONS).glob("*.jsonl")
    whole = part.read_bytes()
    start = whole.rindex(b"\n", 0, len(whole) - 1) + 1

    for size in range(start, len(whole), step):
        part.write_bytes(whole[:size])
        [done] = generate(config(tmp_path, server, "tiny-arithmetic:1", **small))
        assert done.new == 1, f"cut at byte {size}"
        assert rows(tmp_path) == expected
        assert part.read_bytes() == whole
    assert [m for m in caplog.messages if "not a row" in m] == []


def command(results: Path, *more: str, samples: int = 8) -> list[str]:
    return [
        sys.executable, "-m", "evalcore.cli", "generate", str(CHECKPOINT), "-o", str(results),
        "-b", f"tiny-arithmetic:{samples}", "client.concurrency=8", *more,
    ]  # fmt: skip


@pytest.mark.slow
def test_killed_at_random_points(server: str, tmp_path: Path) -> None:
    options = ["--server-type", "openai", "--server-address", server, "--max-problems", "16"]
    subprocess.run(command(tmp_path / "whole", *options), check=True, capture_output=True)
    whole = rows(tmp_path / "whole")
    chance = random.Random(7)
    killed = tmp_path / "killed"
    part = (
        folder_of(killed) / GENERATIONS / next((folder_of(tmp_path / "whole") / GENERATIONS).iterdir()).name
    )
    kills = 0
    with running(CHECKPOINT, faults="delay:seconds=0.15") as slow:
        options[3] = slow
        while True:
            size = part.stat().st_size if part.exists() else 0
            process = subprocess.Popen(
                command(killed, *options), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            # Once it writes, after a random number of bytes more.
            more = size + chance.randrange(1, 12_000)
            while process.poll() is None and (not part.exists() or part.stat().st_size < more):
                time.sleep(0.001)
            process.kill()
            if process.wait() == 0:
                break
            kills += 1
            if chance.random() < 0.5:  # a kill within the write of the last line
                os.truncate(part, chance.randrange(size, part.stat().st_size + 1))

    assert kills >= 3
    assert len(whole) == 9 * 16
    assert without_tokens(rows(killed)) == without_tokens(whole)
    # Nothing twice: a line for each key.
    assert part.read_bytes().count(b"\n") == 9 * 16


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "name"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C")], ids=["SIGTERM", "SIGINT"]
)
def test_a_signal_stops_the_server_and_says_how_to_go_on(number: int, name: str, tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(tmp_path, "server.args=[--faults,'delay:seconds=0.2']"), stderr=subprocess.PIPE, text=True
    )

    def begun() -> bool:
        assert process.poll() is None, process.communicate()[1]
        return bool(list(folder_of(tmp_path).glob(f"{GENERATIONS}/*.jsonl"))) and lines(tmp_path) >= 20

    until(begun, "some answers", LONG)
    servers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    _, said = process.communicate(timeout=120)

    assert process.returncode == 128 + number
    assert f"stopped by {name}; all answers so far are kept, run the same command again to go on" in said
    assert "Traceback" not in said
    assert len(servers) == 2
    assert not any(server.is_running() for server in servers)
    assert 20 <= lines(tmp_path) < 9 * 160


@pytest.mark.parametrize(
    ("there", "wanted", "longest", "expected"),
    [
        ([], range(GREEDY, 0), 8, [range(-1, 0)]),
        ([], range(GREEDY, 4), 8, [range(-1, 0), range(4)]),
        ([2], range(GREEDY, 6), 2, [range(-1, 0), range(2), range(3, 5), range(5, 6)]),
        ([-1, 0, 3], range(GREEDY, 5), 8, [range(1, 3), range(4, 5)]),
        ([], range(3), 1, [range(1), range(1, 2), range(2, 3)]),
        ([-1, 0, 1, 2], range(GREEDY, 3), 8, []),
        ([], range(0), 8, []),
    ],
)
def test_missing_runs(there: list[int], wanted: range, longest: int, expected: list[range]) -> None:
    keys = KeySet()
    for sample in there:
        keys.add(("p", sample))
    keys.add(("another", 1))

    assert missing_runs(keys, "p", wanted, longest=longest) == expected


def test_progress_is_logged(server: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    generate(config(tmp_path, server, "tiny-arithmetic:0"))
    generate(config(tmp_path, server, "tiny-arithmetic:1"))

    assert any(m.startswith("tiny-arithmetic: 6 of 6 samples, ") for m in caplog.messages)


@pytest.mark.slow
def test_refused_setting_of_one_benchmark_does_not_lose_the_next(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks/strange.yaml").write_text(
        "name: strange\nsource: {path: strange.jsonl}\nprompt: tiny/arithmetic\ngeneration: {temperature: 4.0}\n"
    )
    problem = {"id": "one", "problem": "Mia has 2 pens.", "expected_answer": "2"}
    (tmp_path / "benchmarks/strange.jsonl").write_text(json.dumps(problem))
    monkeypatch.setenv("EVALCORE_INCLUDE", str(tmp_path))

    with pytest.raises(EvalError, match=r"1 of 2 benchmarks failed: strange: http.*refuses.*temperature"):
        generate(config(tmp_path, server, "strange:1,tiny-arithmetic:0"))

    assert len(rows(tmp_path)) == PROBLEMS


def test_no_two_samples_of_a_run_or_of_a_fresh_one_share_their_random_numbers() -> None:
    seeds = {
        first_seed(seed, f"p{problem}") + sample
        for seed in range(3)
        for problem in range(500)
        for sample in range(64)
    }
    assert len(seeds) == 3 * 500 * 64
    assert max(seeds) < 2**31
