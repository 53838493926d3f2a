"""Measure a tiny checkpoint on `tiny-arithmetic` with transformers: greedy, pass@1[8], pass@8.

    python include/tiny/measure.py include/tiny/checkpoints/step-001800

Needs torch and transformers; train.py puts the figures into a checkpoint's training.json.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import torch
from folder import load
from problems import benchmark_problems

SAMPLES = 8
TEMPERATURE = 0.8
MAX_NEW_TOKENS = 64
SAMPLING_SEED = 0
PROMPTS_PER_BATCH = 60


def answer(text: str) -> str | None:
    """Return what is in the last box of a solution, or None."""
    boxes = re.findall(r"\\boxed\{([^}]*)\}", text)
    return boxes[-1] if boxes else None


def measure(folder: Path) -> dict[str, float | dict[str, float]]:
    """Return greedy accuracy, pass@1 as the mean of SAMPLES, and pass@SAMPLES, each in 0..1."""
    torch.manual_seed(SAMPLING_SEED)
    model, tokenizer = load(folder)
    problems = benchmark_problems()
    greedy: list[bool] = []
    sampled: list[list[bool]] = []
    for start in range(0, len(problems), PROMPTS_PER_BATCH):
        batch = problems[start : start + PROMPTS_PER_BATCH]
        prompts = tokenizer.apply_chat_template(
            [[{"role": "user", "content": problem.problem}] for problem in batch],
            add_generation_prompt=True,
            padding=True,
            return_tensors="pt",
            return_dict=True,
        )
        for count, settings in (
            (1, {"do_sample": False}),
            (SAMPLES, {"do_sample": True, "temperature": TEMPERATURE, "top_k": 0}),
        ):
            output = model.generate(
                **prompts, max_new_tokens=MAX_NEW_TOKENS, num_return_sequences=count, **settings
            )
            texts = tokenizer.batch_decode(
                output[:, prompts["input_ids"].shape[1] :], skip_special_tokens=True
            )
            for index, problem in enumerate(batch):
                mine = texts[index * count : (index + 1) * count]
                correct = [answer(text) == problem.expected_answer for text in mine]
                if count == 1:
                    greedy += correct
                else:
                    sampled.append(correct)
    subsets: dict[str, list[bool]] = {}
    for problem, correct_greedily in zip(problems, greedy, strict=True):
        subsets.setdefault(problem.subset, []).append(correct_greedily)
    return {
        "greedy": _mean(greedy),
        "greedy_by_subset": {name: _mean(values) for name, values in subsets.items()},
        f"pass@1[{SAMPLES}]": _mean([value for row in sampled for value in row]),
        f"pass@{SAMPLES}": _mean([any(row) for row in sampled]),
    }


def _mean(values: list[bool]) -> float:
    return round(sum(values) / len(values), 4)


if __name__ == "__main__":
    print(measure(Path(sys.argv[1])))
