"""Which of the arguments given to an inference server decide its answers.

>>> answering_args(["--max-num-seqs", "64", "--quantization=fp8", "--max_model_len", "4096"])
(('--max-model-len', '4096'), ('--quantization', 'fp8'))

They are part of a row's id. An argument that is not known here counts: at worst the same answers are asked
for once more, where the other way round the rows of two differently configured servers would mix.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# Of vLLM, SGLang, TensorRT-LLM and our own server. How the work is spread and batched changes sums in their
# last bits, as the requests that happen to be in the same batch do already. What bounds a prompt's length
# (--max-model-len, --max_num_tokens) is no matter of speed: it decides which problems have an error for
# an answer.
_SPEED_OR_PLACE = """
    --tensor-parallel-size --tp-size --tp -tp
    --pipeline-parallel-size --pp-size --pp -pp
    --data-parallel-size --data-parallel-size-local --dp-size --dp -dp -dpl
    --enable-expert-parallel --expert-parallel-size --ep-size --ep -ep --cluster-size
    --distributed-executor-backend --nnodes --node-rank --dist-init-addr --master-addr --master-port
    --gpus-per-node --base-gpu-id --api-server-count --num-postprocess-workers
    --gpu-memory-utilization --mem-fraction-static --free-gpu-memory-fraction
    --kv-cache-free-gpu-memory-fraction --swap-space --cpu-offload-gb
    --max-num-seqs --max-num-batched-tokens --max-running-requests --max-batch-size --max-batch
    --enable-chunked-prefill --chunked-prefill-size --scheduling-policy --schedule-policy
    --enable-prefix-caching --disable-radix-cache --enforce-eager --disable-cuda-graph
    --host --port --served-model-name --model-name
    --log-level --log-level-http --uvicorn-log-level --log-requests --enable-log-requests
    --disable-log-requests --disable-log-stats --disable-uvicorn-access-log --enable-metrics
    --faults
"""


def answering_args(args: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """The options among ``args`` that decide answers, each with its values, sorted by name.

    ``--a=b`` is ``--a b``, and ``--max_model_len`` is ``--max-model-len``, as servers read them. Of an option
    given twice the order is kept, since the last one may win.
    """
    options: list[list[str]] = []
    for arg in args:
        if re.match(r"--?[A-Za-z]", arg):
            name, equals, value = arg.partition("=")
            options.append([name.replace("_", "-"), *([value] if equals else [])])
        elif options:
            options[-1].append(arg)
        else:
            options.append([arg])
    left_out = set(_SPEED_OR_PLACE.split())
    kept = [option for option in options if option[0].replace("--no-", "--", 1) not in left_out]
    return tuple(map(tuple, sorted(kept, key=lambda option: option[0])))
