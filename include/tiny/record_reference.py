"""Record what transformers generates greedily: the embedded server must give the same tokens.

    python include/tiny/record_reference.py        # a minute; needs torch and transformers

Writes include/tiny/reference/<step>.jsonl for the early and the late checkpoint, one row per
problem of `tiny-arithmetic`, in its order: `{"id", "prompt_tokens", "token_ids", "text",
"finish_reason"}`. `token_ids` are the generated ones, with the EOS token where there is one;
`text` leaves special tokens out; `finish_reason` is `stop` after an EOS token, else `length`.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from folder import load
from measure import MAX_NEW_TOKENS
from problems import benchmark_problems, benchmark_row
from train import CHECKPOINTS, EARLY_STEP, LATE_STEP, folder_name

REFERENCE = Path(__file__).resolve().parent / "reference"


def reference_text(folder: Path) -> str:
    """Return the JSONL text; prompts go in one by one, so that no padding touches a number."""
    model, tokenizer = load(folder)
    lines = []
    for index, problem in enumerate(benchmark_problems()):
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": problem.problem}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        prompt_tokens = prompt["input_ids"].shape[1]
        output = model.generate(**prompt, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
        token_ids = output[0, prompt_tokens:].tolist()
        row = {
            "id": benchmark_row(index, problem)["id"],
            "prompt_tokens": prompt_tokens,
            "token_ids": token_ids,
            "text": tokenizer.decode(token_ids, skip_special_tokens=True),
            "finish_reason": "stop" if token_ids[-1] == tokenizer.eos_token_id else "length",
        }
        lines.append(json.dumps(row) + "\n")
    return "".join(lines)


def main() -> None:
    torch.set_num_threads(1)
    REFERENCE.mkdir(exist_ok=True)
    for step in (EARLY_STEP, LATE_STEP):
        name = folder_name(step)
        path = REFERENCE / f"{name}.jsonl"
        path.write_text(reference_text(CHECKPOINTS / name), encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
