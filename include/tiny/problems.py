r"""Synthetic word problems: what the tiny checkpoints train on and `tiny-arithmetic` tests.

    Mia has 17 shells. Mia finds 25 more. How many shells does Mia have now?
    17 + 25 = 42. The answer is \boxed{42}.

A problem is a story and a chain of one to three operations, applied from left to right. Whether
it may be trained on is decided by a hash of the story's kind and its numbers, so the benchmark
and the training set cannot meet, not even under other names and things.

    python include/tiny/problems.py        # writes include/benchmarks/tiny-arithmetic.jsonl
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

BENCHMARK = "tiny-arithmetic"
BENCHMARK_PATH = Path(__file__).resolve().parents[1] / "benchmarks" / f"{BENCHMARK}.jsonl"
BENCHMARK_SEED = 2026
BENCHMARK_SIZE = 240

LARGEST = 199  # no intermediate result is larger
HELD_OUT = 8  # one in eight (kind, numbers) is kept out of training

NAMES = ("Mia", "Tom", "Ada", "Leo", "Zoe", "Sam", "Eva", "Max")
THINGS = ("shells", "apples", "stamps", "cards", "coins", "books", "pens", "marbles")
SUBSETS = ("one-step", "two-step", "three-step")


class Template(NamedTuple):
    """A story. `operators[i]` takes the result so far and the number i + 1 of `ranges`."""

    kind: str
    operators: str
    ranges: tuple[tuple[int, int], ...]  # inclusive
    text: str


TEMPLATES = (
    Template(
        "find", "+", ((3, 90), (3, 90)),
        "{name} has {0} {things}. {name} finds {1} more. How many {things} does {name} have now?",
    ),
    Template(
        "give", "-", ((10, 99), (3, 90)),
        "{name} has {0} {things} and gives {1} of them away. How many {things} are left?",
    ),
    Template(
        "boxes", "*", ((2, 9), (2, 12)),
        "There are {0} boxes with {1} {things} in each. How many {things} are there?",
    ),
    Template(
        "find-give", "+-", ((3, 60), (3, 60), (3, 60)),
        "{name} has {0} {things}, finds {1} more and gives {2} away. "
        "How many {things} does {name} have now?",
    ),
    Template(
        "boxes-find", "*+", ((2, 9), (2, 12), (3, 60)),
        "{name} has {0} boxes with {1} {things} in each and finds {2} more. "
        "How many {things} does {name} have now?",
    ),
    Template(
        "boxes-give", "*-", ((2, 9), (2, 12), (3, 60)),
        "{name} has {0} boxes with {1} {things} in each and gives {2} {things} away. "
        "How many {things} are left?",
    ),
    Template(
        "boxes-find-give", "*+-", ((2, 9), (2, 12), (3, 60), (3, 60)),
        "{name} has {0} boxes with {1} {things} in each, finds {2} more and gives {3} away. "
        "How many {things} does {name} have now?",
    ),
    Template(
        "find-give-find", "+-+", ((3, 60), (3, 60), (3, 60), (3, 60)),
        "{name} has {0} {things}, finds {1} more, gives {2} away and then finds {3}. "
        "How many {things} does {name} have now?",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """A word problem with its reference solution."""

    kind: str
    numbers: tuple[int, ...]
    problem: str
    solution: str
    expected_answer: str

    @property
    def subset(self) -> str:
        """One of SUBSETS: how many operations the solution takes."""
        return SUBSETS[len(self.numbers) - 2]


def calculate(operators: str, numbers: tuple[int, ...]) -> list[tuple[str, int]]:
    """Return the steps as (`17 + 25`, 42), the result of each being the start of the next."""
    steps: list[tuple[str, int]] = []
    result = numbers[0]
    for operator, number in zip(operators, numbers[1:], strict=True):
        expression = f"{result} {operator} {number}"
        if operator == "+":
            result += number
        elif operator == "-":
            result -= number
        else:
            result *= number
        steps.append((expression, result))
    return steps


def draw(rng: random.Random, template: Template) -> Problem:
    """Draw the numbers (again, until every step gives 1..LARGEST), then the name and the thing."""
    while True:
        numbers = tuple(rng.randint(low, high) for low, high in template.ranges)
        steps = calculate(template.operators, numbers)
        if all(0 < result <= LARGEST for _, result in steps):
            break
    answer = str(steps[-1][1])
    story = template.text.format(*numbers, name=rng.choice(NAMES), things=rng.choice(THINGS))
    working = " ".join(f"{expression} = {result}." for expression, result in steps)
    return Problem(
        kind=template.kind,
        numbers=numbers,
        problem=story,
        solution=f"{working} The answer is \\boxed{{{answer}}}.",
        expected_answer=answer,
    )


def is_held_out(problem: Problem) -> bool:
    """Return whether the problem belongs to the benchmark's side of the split.

    SHA-256 rather than `hash`: the split must be the same in every process.
    """
    key = f"{problem.kind}:{','.join(map(str, problem.numbers))}"
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % HELD_OUT == 0


def training_problems(seed: int) -> Iterator[Problem]:
    """Yield training problems without end; none of them is held out."""
    rng = random.Random(seed)
    while True:
        problem = draw(rng, rng.choice(TEMPLATES))
        if not is_held_out(problem):
            yield problem


def benchmark_problems(seed: int = BENCHMARK_SEED, size: int = BENCHMARK_SIZE) -> list[Problem]:
    """Return `size` different held-out problems; the templates take turns, so that the first m
    rows of the file are as hard as all of it."""
    rng = random.Random(seed)
    chosen: dict[str, Problem] = {}
    while len(chosen) < size:
        template = TEMPLATES[len(chosen) % len(TEMPLATES)]
        problem = draw(rng, template)
        if is_held_out(problem):
            chosen.setdefault(problem.problem, problem)
    return list(chosen.values())


def benchmark_row(index: int, problem: Problem) -> dict[str, str]:
    """Return the problem as a row of the benchmark's JSONL file."""
    return {
        "id": f"{BENCHMARK}-{index}",
        "problem": problem.problem,
        "expected_answer": problem.expected_answer,
        "subset_for_metrics": problem.subset,
        "solution": problem.solution,
    }


def benchmark_text(seed: int = BENCHMARK_SEED) -> str:
    """Return the text of the benchmark's JSONL file."""
    rows = (benchmark_row(index, problem) for index, problem in enumerate(benchmark_problems(seed)))
    return "".join(json.dumps(row) + "\n" for row in rows)


if __name__ == "__main__":
    BENCHMARK_PATH.write_text(benchmark_text(), encoding="utf-8")
    print(f"{BENCHMARK_PATH}: {BENCHMARK_SIZE} problems, seed {BENCHMARK_SEED}")
