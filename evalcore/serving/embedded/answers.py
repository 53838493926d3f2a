"""Samples as OpenAI's response objects: the choices of a completion and of a chat completion."""

from __future__ import annotations

from typing import Any

from tokenizers import Tokenizer

from evalcore.serving.embedded.batch import Pending, Sample, Score


def text_of(tokenizer: Tokenizer, sample: Sample) -> str:
    """The answer's text, without special tokens and without the stop string that ended it."""
    if sample.text_until_stop is not None:
        return sample.text_until_stop
    return tokenizer.decode(sample.tokens, skip_special_tokens=True)


def chat_choice(
    tokenizer: Tokenizer, index: int, sample: Sample, *, logprobs: bool, token_ids: bool
) -> dict[str, Any]:
    """One entry of ``choices`` of /v1/chat/completions."""
    return {
        "index": index,
        "message": {"role": "assistant", "content": text_of(tokenizer, sample)},
        "finish_reason": sample.finish_reason,
        "logprobs": {"content": _chat_logprobs(tokenizer, sample.scores)} if logprobs else None,
        "token_ids": sample.tokens if token_ids else None,
    }


def completion_choice(
    tokenizer: Tokenizer,
    index: int,
    sample: Sample,
    of: Pending,
    *,
    echoed: str | None,
    logprobs: bool,
    token_ids: bool,
) -> dict[str, Any]:
    """One entry of ``choices`` of /v1/completions; ``echoed`` is the prompt's text if it is repeated."""
    scores: list[Score | None] = list(sample.scores)
    if echoed is not None:
        # Nothing comes before the first token of the prompt, so it has no probability.
        scores = [None, *of.prompt_scores, *scores]
    return {
        "index": index,
        "text": (echoed or "") + text_of(tokenizer, sample),
        "finish_reason": sample.finish_reason,
        "logprobs": _completion_logprobs(tokenizer, scores, of.request.prompt[0]) if logprobs else None,
        "token_ids": sample.tokens if token_ids else None,
    }


def _chat_logprobs(tokenizer: Tokenizer, scores: list[Score]) -> list[dict[str, Any]]:
    def entry(token: int, logprob: float) -> dict[str, Any]:
        text = _token_text(tokenizer, token)
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}

    return [
        entry(score.token, score.logprob) | {"top_logprobs": [entry(*top) for top in score.top]}
        for score in scores
    ]


def _completion_logprobs(tokenizer: Tokenizer, scores: list[Score | None], first: int) -> dict[str, Any]:
    tokens = [_token_text(tokenizer, first if score is None else score.token) for score in scores]
    offsets = [0]
    for token in tokens[:-1]:
        offsets.append(offsets[-1] + len(token))
    return {
        "tokens": tokens,
        "token_logprobs": [None if score is None else score.logprob for score in scores],
        "top_logprobs": [None if score is None else _alternatives(tokenizer, score) for score in scores],
        "text_offset": offsets[: len(tokens)],
    }


def _alternatives(tokenizer: Tokenizer, score: Score) -> dict[str, float]:
    """Token text to log-probability, the chosen token among them; of equal texts the likelier counts."""
    found: dict[str, float] = {}
    for token, logprob in [*score.top, (score.token, score.logprob)]:
        found.setdefault(_token_text(tokenizer, token), logprob)
    return found


def _token_text(tokenizer: Tokenizer, token: int) -> str:
    return tokenizer.decode([token], skip_special_tokens=False)
