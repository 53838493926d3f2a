"""Which server arguments make other rows."""

from __future__ import annotations

import pytest

from evalcore.serving.args import answering_args


@pytest.mark.parametrize(
    "args",
    [
        ["--max-model-len", "4096", "--quantization", "fp8"],
        ["--quantization=fp8", "--max-model-len=4096"],
        ["--max_model_len=4096", "--quantization", "fp8"],
        ["-tp", "4", "--max-model-len", "4096", "--enforce-eager", "--quantization", "fp8", "--port=9"],
        ["--no-enable-prefix-caching", "--max-model-len=4096", "--quantization=fp8"],
    ],
)
def test_spelling_order_and_speed_make_no_difference(args: list[str]) -> None:
    assert answering_args(args) == (("--max-model-len", "4096"), ("--quantization", "fp8"))


@pytest.mark.parametrize(
    ("args", "kept"),
    [
        ([], ()),
        (["--trust-remote-code"], (("--trust-remote-code",),)),
        (["--rope-scaling", '{"factor": 2}'], (("--rope-scaling", '{"factor": 2}'),)),
        (["--compilation-config={'a=b'}"], (("--compilation-config", "{'a=b'}"),)),
        (["--some-bias", "-1"], (("--some-bias", "-1"),)),
        (["--lora-modules", "a=x", "b=y", "--max-num-seqs", "2"], (("--lora-modules", "a=x", "b=y"),)),
        (["--dtype", "half", "--dtype=auto"], (("--dtype", "half"), ("--dtype", "auto"))),
        (["--max_num_tokens", "8192", "--max_batch_size", "8"], (("--max-num-tokens", "8192"),)),
    ],
)
def test_what_is_kept(args: list[str], kept: tuple[tuple[str, ...], ...]) -> None:
    assert answering_args(args) == kept
