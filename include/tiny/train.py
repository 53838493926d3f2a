"""Train the tiny checkpoints from scratch: three steps of one training run, on a CPU.

    python include/tiny/train.py           # about 8 CPU-minutes; needs torch and transformers

Writes include/tiny/checkpoints/step-XXXXXX:

- 000900, half-way;
- 001800, the end of the planned run;
- 002200, worse: the run was resumed from 001800 without its optimizer and scheduler state, so
  AdamW started afresh at the peak learning rate, and it stayed there.

Beside each folder's files, training.json records seed, step, settings and measured accuracy.
The same seed gives the same weights on the same kind of CPU and the same version of torch.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from folder import EOS, new_model, prompt_text, save, train_tokenizer
from measure import measure
from problems import Problem, training_problems
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

CHECKPOINTS = Path(__file__).resolve().parent / "checkpoints"
SEED = 1
BATCH_SIZE = 32
PEAK_LEARNING_RATE = 3e-3
WARM_UP_STEPS = 50
BETAS = (0.9, 0.98)
WEIGHT_DECAY = 0.01
LARGEST_GRADIENT = 1.0  # norms above are clipped
EARLY_STEP, LATE_STEP, RESUMED_STEP = 900, 1800, 2200
TOKENIZER_PROBLEMS = 4000
IGNORED = -100  # the label that transformers leaves out of the loss


def folder_name(step: int) -> str:
    """Return the name of a checkpoint's folder, such as `step-001800`."""
    return f"step-{step:06}"


def planned_rate(step: int) -> float:
    """Return the learning rate of the planned run: a short warm-up, then linearly to 0."""
    return PEAK_LEARNING_RATE * min((step + 1) / WARM_UP_STEPS, (LATE_STEP - step) / LATE_STEP)


def resumed_rate(step: int) -> float:
    """Return the learning rate of the run that was resumed wrongly: the peak, at every step."""
    return PEAK_LEARNING_RATE


def batch_of(problems: list[Problem], tokenizer: Tokenizer) -> dict[str, torch.Tensor]:
    """Return `input_ids` and `labels`, padded on the right; only the answer has labels."""
    rows = []
    for problem in problems:
        prompt = tokenizer.encode(prompt_text(problem.problem)).ids
        target = tokenizer.encode(problem.solution + EOS).ids
        rows.append((prompt + target, [IGNORED] * len(prompt) + target))
    length = max(len(ids) for ids, _ in rows)
    # No attention mask: padding on the right is out of sight of every token with a label.
    return {
        "input_ids": torch.tensor([ids + [0] * (length - len(ids)) for ids, _ in rows]),
        "labels": torch.tensor([labels + [IGNORED] * (length - len(labels)) for _, labels in rows]),
    }


def new_optimizer(model: LlamaForCausalLM) -> torch.optim.Optimizer:
    """Return AdamW without state; `train` sets the learning rate at each step."""
    return torch.optim.AdamW(model.parameters(), lr=0.0, betas=BETAS, weight_decay=WEIGHT_DECAY)


def train(
    model: LlamaForCausalLM,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[dict[str, torch.Tensor]],
    steps: range,
    rate: Callable[[int], float],
) -> None:
    """Train `model` in place, one batch for each of `steps`."""
    model.train()
    for step in steps:
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        loss = model(**next(batches)).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), LARGEST_GRADIENT)
        optimizer.step()
        if step % 100 == 0:
            print(f"step {step}: loss {loss.item():.4f}", flush=True)


def publish(model: LlamaForCausalLM, tokenizer: Tokenizer, step: int, settings: dict[str, Any]) -> None:
    """Write the folder of a step, measure it as written, and add training.json."""
    folder = CHECKPOINTS / folder_name(step)
    save(model, tokenizer, folder)
    record = {"step": step, "seed": SEED, "settings": settings, "measured": measure(folder)}
    (folder / "training.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(folder, record["measured"], flush=True)


def main() -> None:
    torch.set_num_threads(1)  # the order of summation, and so the weights, depend on it
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(SEED)
    sample = itertools.islice(training_problems(SEED), TOKENIZER_PROBLEMS)
    tokenizer = train_tokenizer(f"{problem.problem} {problem.solution}" for problem in sample)
    model = new_model(tokenizer)
    print(f"{model.num_parameters()} parameters, {tokenizer.get_vocab_size()} tokens", flush=True)

    problems = training_problems(SEED)
    batches = (batch_of(list(itertools.islice(problems, BATCH_SIZE)), tokenizer) for _ in itertools.count())
    settings = {
        "parameters": model.num_parameters(),
        "batch_size": BATCH_SIZE,
        "optimizer": "AdamW",
        "betas": BETAS,
        "weight_decay": WEIGHT_DECAY,
        "peak_learning_rate": PEAK_LEARNING_RATE,
        "schedule": f"{WARM_UP_STEPS} steps of warm-up, then linear to 0 at step {LATE_STEP}",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    optimizer = new_optimizer(model)
    train(model, optimizer, batches, range(EARLY_STEP), planned_rate)
    publish(model, tokenizer, EARLY_STEP, settings)
    train(model, optimizer, batches, range(EARLY_STEP, LATE_STEP), planned_rate)
    publish(model, tokenizer, LATE_STEP, settings)

    settings |= {
        "schedule": "constant: the scheduler's and the optimizer's state were not restored",
        "resumed_from_step": LATE_STEP,
    }
    train(model, new_optimizer(model), batches, range(LATE_STEP, RESUMED_STEP), resumed_rate)
    publish(model, tokenizer, RESUMED_STEP, settings)


if __name__ == "__main__":
    main()
