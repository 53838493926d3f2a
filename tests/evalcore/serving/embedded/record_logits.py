"""Record transformers' logits of the random Llama variants, to compare the embedded server's with.

    PYTHONPATH=tests python tests/evalcore/serving/embedded/record_logits.py      # needs torch, transformers

Writes logits.json beside this file: variant name to the logits, rounded, of the first VOCABULARY tokens
after each position of PROMPT.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import torch
from transformers import LlamaForCausalLM

from random_llama import VARIANTS, write_llama

PROMPT = [(7 * i * i + 3 * i) % 260 for i in range(60)]
VOCABULARY = 6


def main() -> None:
    recorded = {}
    for name, changes in VARIANTS.items():
        with tempfile.TemporaryDirectory() as folder:
            write_llama(Path(folder), **changes)
            model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        with torch.no_grad():
            logits = model(torch.tensor([PROMPT])).logits[0, :, :VOCABULARY]
        recorded[name] = [[round(value, 4) for value in row] for row in logits.tolist()]
    reference = {"prompt": PROMPT, "logits": recorded}
    (Path(__file__).parent / "logits.json").write_text(json.dumps(reference) + "\n")


if __name__ == "__main__":
    main()
