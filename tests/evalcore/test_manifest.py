"""What changes an id, and what must not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evalcore.benchmarks import load_benchmark
from evalcore.checkpoints import Checkpoint, checkpoint_of
from evalcore.config import EvalConfig, Sampling
from evalcore.errors import ResultsError
from evalcore.manifest import BenchmarkInfo, Grading, Judging, Manifest, PromptInfo, ServerInfo, settings_id

PROMPT = PromptInfo(name="generic/math", digest="p1")
MANIFEST = Manifest(
    settings="s1",
    checkpoint=Checkpoint(path="/ckpt", run="run", name="step-1", step=1, digest="c1"),
    benchmark=BenchmarkInfo(
        name="gsm8k",
        split="test",
        digest="b1",
        num_problems=2,
        metrics=("pass",),
        needs_judge=False,
    ),
    prompt=PROMPT,
    chat_template="t1",
    server_args=(("--quantization", "fp8"),),
    sampling=Sampling(),
    samples=4,
    greedy=True,
    server=ServerInfo(type="vllm", model="m", version="0.33"),
    grading=Grading(grader="math", options={}, version="1"),
    judging=Judging(model="j", prompt=PROMPT, temperature=0, tokens_to_generate=1),
)


def changed(path: str, value: Any) -> Manifest:
    content = MANIFEST.model_dump()
    *parents, last = path.split(".")
    inner = content
    for parent in parents:
        inner = inner[parent]
    inner[last] = value
    return Manifest.model_validate(content)


def ids(manifest: Manifest) -> tuple[str | None, ...]:
    return manifest.generation_id, manifest.grading_id, manifest.judging_id, manifest.fingerprint


@pytest.mark.parametrize(
    ("path", "value", "changes"),
    [
        # (generation_id, grading_id, judging_id, fingerprint)
        ("checkpoint.digest", "c2", (True, True, True, False)),
        ("benchmark.digest", "b2", (True, True, True, True)),
        ("prompt.digest", "p2", (True, True, True, True)),
        ("chat_template", "t2", (True, True, True, True)),
        ("converted_to", "hf:bfloat16", (True, True, True, True)),
        ("server_args", [], (True, True, True, True)),
        ("sampling.temperature", 0.6, (True, True, True, True)),
        ("sampling.stop", ["\n"], (True, True, True, True)),
        ("grading.version", "2", (False, True, True, True)),
        ("grading.options", {"extract": "relaxed"}, (False, True, True, True)),
        ("judging.model", "j2", (False, False, True, True)),
        ("judging.prompt.digest", "p2", (False, False, True, True)),
        # A move of the checkpoint, another server, or more samples make nothing stale.
        ("checkpoint.path", "/elsewhere", (False, False, False, False)),
        ("checkpoint.step", 2, (False, False, False, False)),
        ("server.version", "0.34", (False, False, False, False)),
        ("settings", "s2", (False, False, False, False)),
        ("samples", 8, (False, False, False, False)),
        ("evalcore", "9", (False, False, False, False)),
    ],
)
def test_what_changes_an_id(path: str, value: Any, changes: tuple[bool, ...]) -> None:
    other = ids(changed(path, value))
    assert tuple(a != b for a, b in zip(ids(MANIFEST), other, strict=True)) == changes


def test_results_of_earlier_versions_are_still_found() -> None:
    assert ids(MANIFEST) == ("6a19ac353272", "5931091e6b98", "13ef6b12c86a", "78d3d096559c")
    config = EvalConfig(checkpoint="/ckpt", benchmarks="aime24:4", converter="dcp")  # type: ignore[arg-type]
    assert settings_id(config, MANIFEST.checkpoint, load_benchmark("aime24")) == "7657dd449dd7"


def test_what_another_converter_made_has_other_ids_and_can_be_compared() -> None:
    def converted(digest: str, name: str = "c") -> Manifest:
        conversion = {"name": name, "command": ["convert"], "copy_from": None, "digest": digest}
        return changed("checkpoint.conversion", conversion)

    first, second, renamed = converted("d1"), converted("d2"), converted("d1", "other")
    assert len({m.generation_id for m in (MANIFEST, first, second)}) == 3
    assert ids(renamed) == ids(first)
    # It is software, as the server is; that it changed is for the confirmation to find out, and for the canary.
    assert {m.fingerprint for m in (MANIFEST, first, second)} == {MANIFEST.fingerprint}
    config, gsm8k = EvalConfig(checkpoint="/ckpt", benchmarks="a"), load_benchmark("gsm8k")  # type: ignore[arg-type]
    assert len({settings_id(config, m.checkpoint, gsm8k) for m in (MANIFEST, first, second)}) == 3


def test_it_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    MANIFEST.save(tmp_path)
    assert Manifest.load(tmp_path) == MANIFEST


@pytest.mark.parametrize("content", ["", "{", "[]", '{"samples": 1}'])
def test_an_unreadable_manifest_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(ResultsError, match=r"manifest\.json: unreadable"):
        Manifest.load(tmp_path)


def test_a_folder_without_one_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="run `evalcore generate` first"):
        Manifest.load(tmp_path)
    with pytest.raises(ResultsError, match=rf"^{tmp_path}/typo: no such folder$"):
        Manifest.load(tmp_path / "typo")


def test_a_served_model_is_told_apart_by_name_and_address() -> None:
    def info(address: str, model: str) -> Checkpoint:
        return checkpoint_of(
            EvalConfig.model_validate({"benchmarks": "a", "server": {"address": address, "model": model}})
        )

    first = info("http://a/v1", "meta/llama-8b")
    assert (first.path, first.run, first.name) == (None, "models", "meta-llama-8b")
    digests = {info(a, m).digest for a in ("http://a/v1", "http://b/v1") for m in ("x", "y")}
    assert len(digests) == 4
