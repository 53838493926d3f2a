from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from evalcore.chat_template import ChatTemplate
from evalcore.serving.embedded import engine as engine_module
from evalcore.serving.embedded.batch import Pending, Request, Sample
from evalcore.serving.embedded.engine import Engine
from evalcore.serving.embedded.server import load_service
from random_llama import write_llama

pytestmark = pytest.mark.slow

INCLUDE = Path(__file__).parents[4] / "include"
REFERENCES = sorted((INCLUDE / "tiny" / "reference").glob("*.jsonl"))


def new_engine(checkpoint: Path, max_batch: int = 64) -> Engine:
    return load_service(checkpoint, None, max_batch, None, "").driver.engine


def prompt(seed: int, length: int = 12) -> list[int]:
    return np.random.RandomState(seed).randint(0, 256, length).tolist()


def run(engine: Engine, requests: list[Request]) -> list[Pending]:
    """Submit all at once and step until nothing is left."""
    submitted = [engine.submit(request) for request in requests]
    while engine.busy:
        engine.step()
    return submitted


def answers(engine: Engine, requests: list[Request]) -> list[list[Sample]]:
    return [pending.result() for pending in run(engine, requests)]


def answer(engine: Engine, request: Request) -> list[Sample]:
    return answers(engine, [request])[0]


@pytest.mark.parametrize("reference", REFERENCES, ids=lambda path: path.stem)
def test_greedy_answers_equal_those_of_transformers(reference: Path) -> None:
    checkpoint = INCLUDE / "tiny" / "checkpoints" / reference.stem
    engine, template = new_engine(checkpoint), ChatTemplate.load(checkpoint)
    expected = [json.loads(line) for line in reference.read_text().splitlines()]
    benchmark = (INCLUDE / "benchmarks" / "tiny-arithmetic.jsonl").read_text().splitlines()
    assert len(expected) == len(benchmark) >= 200
    limit = max(len(row["token_ids"]) for row in expected)
    requests = []
    for line in benchmark:
        text = template.render([{"role": "user", "content": json.loads(line)["problem"]}])
        ids = engine.tokenizer.encode(text, add_special_tokens=False).ids
        requests.append(Request(ids, max_tokens=limit, temperature=0))
    got = [
        {
            "prompt_tokens": len(request.prompt),
            "token_ids": sample.tokens,
            "text": engine.tokenizer.decode(sample.tokens),
            "finish_reason": sample.finish_reason,
        }
        for request, (sample,) in zip(requests, answers(engine, requests), strict=True)
    ]
    different = [
        row["id"] for row, mine in zip(expected, got, strict=True) if {k: row[k] for k in mine} != mine
    ]
    assert different == []


def test_there_are_references_to_compare_with() -> None:
    assert len(REFERENCES) >= 2


def test_answers_do_not_depend_on_what_else_runs(checkpoint: Path) -> None:
    requests = [
        Request(prompt(i, 5 + 3 * (i % 7)), max_tokens=10 + i % 13, temperature=i % 3 * 0.6, seed=i)
        for i in range(40)
    ]
    together = answers(new_engine(checkpoint), requests)
    few = answers(new_engine(checkpoint, max_batch=3), requests)
    engine = new_engine(checkpoint)
    alone = [answer(engine, request) for request in requests]
    tokens = [[sample.tokens for sample in samples] for samples in alone]
    assert [[s.tokens for s in samples] for samples in together] == tokens
    assert [[s.tokens for s in samples] for samples in few] == tokens


def test_n_samples_are_those_of_consecutive_seeds(checkpoint: Path) -> None:
    engine = new_engine(checkpoint, max_batch=3)  # fewer slots than samples
    (grouped,) = answers(engine, [Request(prompt(1), max_tokens=20, n=8, seed=2**63 - 4)])
    singles = [Request(prompt(1), max_tokens=20, seed=2**63 - 4 + i) for i in range(8)]
    assert [s.tokens for s in grouped] == [s.tokens for (s,) in answers(engine, singles)]
    assert len({tuple(s.tokens) for s in grouped}) == 8


def test_a_prompt_longer_than_one_pass_takes(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request = Request(prompt(3, 100), max_tokens=20, temperature=0, logprobs=0, prompt_logprobs=0)
    engine = new_engine(checkpoint)
    (whole,) = run(engine, [request])
    monkeypatch.setattr(engine_module, "_CHUNK", 7)
    monkeypatch.setattr(engine_module, "_PREFILL_TOKENS", 30)
    unscored = Request(prompt(3, 100), max_tokens=20, temperature=0)
    again, *others = run(engine, [request, unscored, unscored])
    for pending in (again, *others):
        assert pending.result()[0].tokens == whole.result()[0].tokens
    assert len(again.prompt_scores) == 99
    np.testing.assert_allclose(
        [s.logprob for s in again.prompt_scores], [s.logprob for s in whole.prompt_scores], atol=1e-4
    )


def test_a_shared_beginning_is_fed_once(checkpoint: Path) -> None:
    engine = new_engine(checkpoint)
    fed = []
    forward = engine.model.forward

    def counting(cache, tokens, positions, spans=(), **options):  # type: ignore[no-untyped-def]
        fed.append(sum(len(span.tokens) for span in spans))
        return forward(cache, tokens, positions, spans, **options)

    engine.model.forward = counting  # type: ignore[method-assign]
    engine.submit(Request(prompt(5, 40), max_tokens=80, temperature=0))
    engine.step()
    follower = Request([*prompt(5, 40)[:30], *prompt(6, 10)], max_tokens=5, n=4)
    samples = answer(engine, follower)
    assert sum(fed) == 40 + 10
    assert [s.tokens for s in samples] == [s.tokens for s in answer(new_engine(checkpoint), follower)]


def test_stop_strings_match_across_tokens(checkpoint: Path) -> None:
    engine = new_engine(checkpoint)
    base = Request(prompt(8), max_tokens=60, temperature=0)
    (free,) = answer(engine, base)
    text = engine.tokenizer.decode(free.tokens)
    for start, length in ((5, 1), (10, 4), (0, 3), (len(text) - 3, 3)):
        stop = text[start : start + length]
        (sample,) = answer(
            engine, Request(base.prompt, max_tokens=60, temperature=0, stop=("never to be found", stop))
        )
        assert sample.text_until_stop == text[: text.find(stop)]
        assert sample.finish_reason == "stop"
        assert len(sample.tokens) <= len(free.tokens)


def test_log_probabilities(checkpoint: Path) -> None:
    engine = new_engine(checkpoint)
    request = Request(prompt(9), max_tokens=6, temperature=0.7, seed=3, logprobs=2)
    (sample,) = answer(engine, request)
    assert [score.token for score in sample.scores] == sample.tokens
    # Scoring the answer as a prompt must give the same numbers: they are before temperature.
    scored = Request([*request.prompt, *sample.tokens], max_tokens=0, logprobs=2, prompt_logprobs=2)
    (echo,) = run(engine, [scored])
    assert echo.result()[0].tokens == []
    assert echo.result()[0].finish_reason == "length"
    for mine, again in zip(sample.scores, echo.prompt_scores[-6:], strict=True):
        assert mine.token == again.token
        assert mine.logprob == pytest.approx(again.logprob, abs=1e-4)
        assert [t for t, _ in mine.top] == [t for t, _ in again.top]
        assert mine.top[0][1] >= mine.logprob - 1e-6


def test_a_cancelled_request_frees_its_slots(checkpoint: Path) -> None:
    engine = new_engine(checkpoint, max_batch=2)
    kept, *given_up = [engine.submit(Request(prompt(i), max_tokens=110, n=2)) for i in range(20)]
    engine.step()
    last = engine.submit(Request(prompt(99), max_tokens=3, seed=4))
    for pending in given_up:
        engine.cancel(pending)
    finished = []
    while engine.busy:
        finished += engine.step()
    assert set(finished) == {kept, last}
    assert last.result()[0].tokens == answer(engine, last.request)[0].tokens


def test_slots_taken_by_a_cancelled_request_are_used_again(checkpoint: Path) -> None:
    engine = new_engine(checkpoint, max_batch=2)
    running = engine.submit(Request(prompt(1), max_tokens=100, n=2))
    engine.step()
    waiting = engine.submit(Request(prompt(2), max_tokens=1))
    engine.step()
    assert waiting.missing
    engine.cancel(running)
    assert engine.step() == [waiting]
    assert not engine.busy


def test_a_model_without_end_of_text_answers_to_the_limit(tmp_path: Path) -> None:
    engine = new_engine(write_llama(tmp_path, eos_token_id=None))
    (sample,) = answer(engine, Request(prompt(1), max_tokens=116, temperature=1.0, seed=1))
    assert len(sample.tokens) == 116
    assert sample.finish_reason == "length"
