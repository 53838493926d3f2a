"""The tiny checkpoints and their benchmark are what their scripts say they are."""

from __future__ import annotations

import importlib.util
import itertools
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import jinja2
import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file
from tokenizers import Tokenizer

INCLUDE = Path(__file__).parents[2] / "include"
TINY = INCLUDE / "tiny"
CHECKPOINTS = sorted((TINY / "checkpoints").iterdir())
EARLY, LATE, RESUMED = CHECKPOINTS


@pytest.fixture(scope="module")
def problems() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("tiny_problems", TINY / "problems.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses looks its module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    return read_jsonl(INCLUDE / "benchmarks" / "tiny-arithmetic.jsonl")


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


# The benchmark


def test_file_is_what_the_generator_gives_with_the_recorded_seed(problems: ModuleType) -> None:
    card = yaml.safe_load((INCLUDE / "benchmarks" / "tiny-arithmetic.yaml").read_text())
    recorded = re.search(r"generator seed (\d+)", card["description"])
    assert recorded
    written = (INCLUDE / "benchmarks" / card["source"]["path"]).read_text(encoding="utf-8")
    assert problems.benchmark_text(seed=int(recorded[1])) == written
    assert problems.benchmark_text(seed=int(recorded[1]) + 1) != written


def test_rows_are_unique_and_mixed(rows: list[dict[str, str]], problems: ModuleType) -> None:
    assert len(rows) >= 200
    assert len({row["problem"] for row in rows}) == len(rows)
    assert [row["id"] for row in rows] == [f"tiny-arithmetic-{i}" for i in range(len(rows))]
    assert {row["subset_for_metrics"] for row in rows[:8]} == set(problems.SUBSETS)


def test_solutions_are_true(rows: list[dict[str, str]]) -> None:
    for row in rows:
        steps = re.findall(r"(\d+) ([-+*]) (\d+) = (\d+)\.", row["solution"])
        assert len(steps) == ["one-step", "two-step", "three-step"].index(row["subset_for_metrics"]) + 1
        for left, operator, right, result in steps:
            a, b = int(left), int(right)
            assert {"+": a + b, "-": a - b, "*": a * b}[operator] == int(result)
        used = sorted(re.findall(r"\d+", row["problem"]))
        assert used == sorted([steps[0][0], *(step[2] for step in steps)])
        assert row["solution"].endswith(f"The answer is \\boxed{{{row['expected_answer']}}}.")
        assert steps[-1][3] == row["expected_answer"]


@pytest.mark.slow
def test_no_benchmark_problem_is_in_the_training_set(
    rows: list[dict[str, str]], problems: ModuleType
) -> None:
    record = read_json(RESUMED / "training.json")
    drawn = record["step"] * record["settings"]["batch_size"]
    seen = {
        (problem.kind, problem.numbers)
        for problem in itertools.islice(problems.training_problems(record["seed"]), drawn)
    }
    tested = problems.benchmark_problems()
    assert [problem.problem for problem in tested] == [row["problem"] for row in rows]
    assert not seen & {(problem.kind, problem.numbers) for problem in tested}


def test_training_draws_every_kind_of_problem(problems: ModuleType) -> None:
    drawn = itertools.islice(problems.training_problems(0), 500)
    assert {problem.kind for problem in drawn} == {template.kind for template in problems.TEMPLATES}


# The checkpoints


@pytest.mark.parametrize("folder", CHECKPOINTS, ids=lambda folder: folder.name)
def test_weights_are_complete(folder: Path) -> None:
    weights = folder / "model.safetensors"
    data = weights.read_bytes()
    header_size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + header_size])
    header.pop("__metadata__")
    assert len(data) == 8 + header_size + max(x["data_offsets"][1] for x in header.values())
    tensors = load_file(weights)
    assert {tensor.dtype for tensor in tensors.values()} == {np.dtype(np.float16)}
    assert all(np.isfinite(tensor).all() for tensor in tensors.values())
    assert "lm_head.weight" not in tensors  # tied
    assert sum(tensor.size for tensor in tensors.values()) == 639_872


@pytest.mark.parametrize("folder", CHECKPOINTS, ids=lambda folder: folder.name)
def test_chat_template_and_tokenizer(folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    config = read_json(folder / "config.json")
    settings = read_json(folder / "tokenizer_config.json")
    assert tokenizer.get_vocab_size() == config["vocab_size"]
    for name in ("bos", "eos", "pad"):
        assert tokenizer.token_to_id(settings[f"{name}_token"]) == config[f"{name}_token_id"]

    text = jinja2.Template(settings["chat_template"]).render(
        messages=[{"role": "user", "content": "Mia has 17 pens."}],
        bos_token=settings["bos_token"],
        add_generation_prompt=True,
    )
    assert text == "<|begin|><|user|>Mia has 17 pens.<|end|><|assistant|>"
    # Nothing is added to the text: a completions request sees the tokens a chat request sees.
    tokens = tokenizer.encode(text).tokens
    assert tokens[:2] == ["<|begin|>", "<|user|>"]
    assert tokens[-2:] == ["<|end|>", "<|assistant|>"]
    assert [token for token in tokens if token.isdigit()] == ["1", "7"]
    assert tokenizer.decode(tokenizer.encode("¿5 × 3 = 15? ✓").ids) == "¿5 × 3 = 15? ✓"


def test_one_run_got_better_and_then_worse() -> None:
    records = [read_json(folder / "training.json") for folder in CHECKPOINTS]
    assert [f"step-{record['step']:06}" for record in records] == [f.name for f in CHECKPOINTS]
    assert len({record["seed"] for record in records}) == 1
    assert records[2]["settings"]["resumed_from_step"] == records[1]["step"]
    early, late, resumed = (record["measured"] for record in records)
    assert early["greedy"] < late["greedy"] - 0.3
    assert 0.6 <= late["greedy"] <= 0.8
    assert late["pass@8"] > late["pass@1[8]"] + 0.15
    assert 0.15 <= late["greedy"] - resumed["greedy"] <= 0.3


# The recorded reference


@pytest.mark.parametrize("folder", [EARLY, LATE], ids=lambda folder: folder.name)
def test_reference_covers_the_benchmark(folder: Path, rows: list[dict[str, str]]) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    recorded = read_jsonl(TINY / "reference" / f"{folder.name}.jsonl")
    assert [row["id"] for row in recorded] == [row["id"] for row in rows]
    correct = 0
    for row, reference in zip(rows, recorded, strict=True):
        prompt = f"<|begin|><|user|>{row['problem']}<|end|><|assistant|>"
        assert len(tokenizer.encode(prompt).ids) == reference["prompt_tokens"]
        assert tokenizer.decode(reference["token_ids"]) == reference["text"]
        ended = reference["token_ids"][-1] == tokenizer.token_to_id("<|end|>")
        assert reference["finish_reason"] == ("stop" if ended else "length")
        correct += f"\\boxed{{{row['expected_answer']}}}" in reference["text"]
    measured = read_json(folder / "training.json")["measured"]["greedy"]
    assert correct / len(rows) == pytest.approx(measured, abs=0.005)
