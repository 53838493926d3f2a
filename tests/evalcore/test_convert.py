"""Conversions are right to the bit, made once, and never seen half-made."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from evalcore.checkpoints import Checkpoint, checkpoint_of
from evalcore.config import EvalConfig
from evalcore.convert import convert
from evalcore.errors import CheckpointError, ConfigError, ResultsError
from evalcore.model_folder import check_complete, digest, read_header
from tiny_folder import TENSORS, write_checkpoint
from waiting import started, until


def info(folder: Path) -> Checkpoint:
    return checkpoint_of(EvalConfig(checkpoint=str(folder), benchmarks="a"))  # type: ignore[arg-type]


def below(folder: Path) -> list[Path]:
    """What a conversion leaves there, beside its lock."""
    return [path for path in folder.iterdir() if path.name != ".convert.lock"]


def tensor(folder: Path, name: str) -> tuple[str, bytes]:
    for file in folder.glob("*.safetensors"):
        header = read_header(file)
        if name in header:
            data = file.read_bytes()
            start = 8 + int.from_bytes(data[:8], "little")
            low, high = header[name]["data_offsets"]
            return header[name]["dtype"], data[start + low : start + high]
    raise AssertionError(name)


@pytest.mark.parametrize("shards", [1, 2])
def test_bfloat16_rounds_half_to_even_and_keeps_integers(tmp_path: Path, shards: int) -> None:
    source = write_checkpoint(tmp_path / "ckpt", shards)
    target = convert(info(source), "hf:bfloat16", tmp_path / "out")
    assert target is not None
    check_complete(target)
    dtype, raw = tensor(target, "a.weight")
    # 1.0, -2.5, 0.1 (0x3DCCCCCD rounds up), 65504 (0x477FE000 rounds up to 65536).
    assert (dtype, np.frombuffer(raw, "<u2").tolist()) == ("BF16", [0x3F80, 0xC020, 0x3DCD, 0x4780])
    dtype, raw = tensor(target, "b.weight")
    assert np.isnan((np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)[1])
    assert tensor(target, "c.ids") == ("I64", TENSORS["c.ids"].tobytes())
    assert json.loads((target / "config.json").read_text())["dtype"] == "bfloat16"


def test_there_and_back_is_exact_where_the_values_fit(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "ckpt")
    half = convert(info(source), "hf:float16", tmp_path / "out")
    assert half is not None
    back = convert(info(half), "hf:float32", tmp_path / "out")
    assert back is not None
    dtype, raw = tensor(back, "a.weight")
    expected = TENSORS["a.weight"].astype(np.float16).astype(np.float32)
    assert (dtype, raw) == ("F32", expected.tobytes())


def test_it_is_done_once_and_leaves_no_temporary_folder(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "ckpt")
    first = convert(info(source), "hf:float16", tmp_path / "out")
    assert first is not None
    before = (first / "model.safetensors").stat().st_mtime_ns
    assert convert(info(source), "hf:float16", tmp_path / "out") == first
    assert (first / "model.safetensors").stat().st_mtime_ns == before
    assert below(tmp_path / "out") == [first]


def test_hf_serves_the_checkpoint_where_it_lies(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "ckpt")
    assert convert(info(source), "hf", tmp_path / "out") == source
    assert not (tmp_path / "out").exists()


def test_what_does_not_fit_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "ckpt")
    save_file({"a": np.array([1e5], np.float32)}, source / "model.safetensors")
    with pytest.raises(CheckpointError, match="do not fit float16; convert to bfloat16"):
        convert(info(source), "hf:float16", tmp_path / "out")
    assert below(tmp_path / "out") == []


def test_what_a_killed_conversion_left_is_removed(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "ckpt")
    converted = convert(info(source), "hf:float16", tmp_path / "out")
    assert converted is not None
    converted.rename(tmp_path / "out" / f".{converted.name}.tmp")
    (tmp_path / "out" / f".{converted.name}.tmp" / "model.safetensors").write_bytes(b"half")
    (tmp_path / "out" / ".hf-bfloat16-of-another-checkpoint.tmp").mkdir()
    assert convert(info(source), "hf:float16", tmp_path / "out") == converted
    check_complete(converted)
    assert below(tmp_path / "out") == [converted]


def test_sigterm_removes_what_is_half_made(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "ckpt")
    # 80 GB of nothing: it takes no room, and its conversion takes longer than this test.
    count, size = 10_000, 8 << 20
    table = {
        str(i): {"dtype": "F32", "shape": [size // 4], "data_offsets": [i * size, (i + 1) * size]}
        for i in range(count)
    }
    header = json.dumps(table).encode()
    with (source / "model.safetensors").open("wb") as stream:
        stream.write(len(header).to_bytes(8, "little") + header)
        stream.truncate(8 + len(header) + count * size)
    out = tmp_path / "out"
    command = f"""
from pathlib import Path
from evalcore.checkpoints import load_checkpoint
from evalcore.convert import convert
convert(load_checkpoint(Path({str(source)!r})), "hf:bfloat16", Path({str(out)!r}))
"""
    with started([sys.executable, "-c", command]) as process:
        until(lambda: list(out.glob(".*.tmp/model.safetensors")), "a conversion that has begun")
        process.terminate()
        assert process.wait(60) == 128 + signal.SIGTERM
    assert below(out) == []


def test_two_at_once_convert_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    source = write_checkpoint(tmp_path / "ckpt")
    checkpoint, out = info(source), tmp_path / "out"
    # Another process, from when it has the lock until it ends.
    command = f"""
from pathlib import Path
from evalcore.processes import locked
with locked(Path({str(out / ".convert.lock")!r}), "converts"):
    Path({str(out / ".hf-of-another.tmp")!r}).mkdir()
    input()
"""
    out.mkdir()
    with (
        started([sys.executable, "-c", command], stdin=subprocess.PIPE) as other,
        ThreadPoolExecutor() as threads,
    ):
        begun = until(lambda: list(out.glob("*.tmp")), "the other one's lock")
        waiting = threads.submit(convert, checkpoint, "hf:float16", out)
        until(lambda: "waiting for another process" in caplog.text, "the second conversion")
        assert below(out) == begun, "what a living process writes is left alone"
        other.kill()
        converted = waiting.result(timeout=60)
    assert below(out) == [converted]


def test_a_truncated_shard_is_refused(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "ckpt")
    checkpoint = info(source)
    weights = (source / "model.safetensors").read_bytes()
    (source / "model.safetensors").write_bytes(weights[:-1])
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        convert(checkpoint, "hf:float16", tmp_path / "out")
    assert below(tmp_path / "out") == []


def test_what_lacks_a_tensor_is_not_kept(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "ckpt", shards=2)
    checkpoint = info(source)
    index = source / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["ghost"] = content["weight_map"]["a.weight"]
    index.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="tensor ghost is not in"):
        convert(checkpoint.model_copy(update={"digest": digest(source)}), "hf:float16", tmp_path / "out")
    assert below(tmp_path / "out") == []


def test_a_checkpoint_overwritten_meanwhile_is_not_kept_under_its_old_digest(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "ckpt")
    checkpoint = info(source)
    (source / "generation_config.json").write_text('{"eos_token_id": 1}')
    with pytest.raises(CheckpointError, match="changed while it was converted"):
        convert(checkpoint, "hf:float16", tmp_path / "out")
    assert below(tmp_path / "out") == []


def test_a_place_that_cannot_be_written_to_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(
        ResultsError, match=rf"^cannot convert to {tmp_path}/out/hf-float16-\w+: File exists$"
    ):
        convert(info(write_checkpoint(tmp_path / "ckpt")), "hf:float16", tmp_path / "out")


def test_an_unknown_target_lists_the_valid_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'gguf'; valid: hf, hf:bfloat16"):
        convert(info(write_checkpoint(tmp_path / "ckpt")), "gguf", tmp_path)
