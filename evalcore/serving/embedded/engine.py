"""Continuous batching: new sequences are prefilled and running ones decoded in one pass, step by step.

    engine = Engine(Llama(config, weights), tokenizer, max_batch=64, max_length=256)
    pending = engine.submit(Request(prompt=[1, 4, 90], max_tokens=50, n=8, temperature=0.8, seed=1))
    while pending.missing:
        engine.step()
    pending.result()[0].tokens, pending.result()[0].finish_reason

Requests are admitted between steps, in the order they came. ``driver`` steps it beside an event loop.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from tokenizers import Tokenizer

from evalcore.serving.embedded.batch import Batch, Pending, Request, Running, Sample, score
from evalcore.serving.embedded.model import Llama, Span
from evalcore.serving.embedded.sampling import choose, log_softmax
from evalcore.serving.embedded.weights import Array

# Tokens fed to one slot in one pass, and of all prompts together: they bound the memory that attention
# scores and hidden states take, and how long running sequences wait for a new one.
_CHUNK = 512
_PREFILL_TOKENS = 2048
_NO_TOKENS = np.array([], np.int64)


class Engine:
    """The batch and those who wait for a place in it.

    One thread at a time may step; ``submit`` and ``cancel`` may be called from another meanwhile.
    """

    def __init__(self, model: Llama, tokenizer: Tokenizer, *, max_batch: int, max_length: int) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.max_length = max_length
        self._batch = Batch(model.config, max_batch, max_length)
        self._waiting: deque[Running] = deque()
        self._finished: list[Pending] = []
        self._cancelled = False  # some request was, since the last step
        self._ends = np.zeros(model.config.vocab_size, np.bool_)
        self._ends[list(model.config.eos_ids)] = True

    @property
    def busy(self) -> bool:
        return bool(self._batch.sequences or self._waiting)

    def submit(self, request: Request) -> Pending:
        """Queue a request.

        The prompt must leave room for an answer: 0 < len(prompt) and len(prompt) + max_tokens <=
        max_length.
        """
        pending = Pending(request)
        self._waiting.extend(Running(pending, index) for index in range(request.n))
        return pending

    def cancel(self, pending: Pending) -> None:
        """Give up a request; its slots are free from the next step on."""
        pending.cancelled = self._cancelled = True

    def step(self) -> list[Pending]:
        """Give every running sequence its next token; return the requests that are complete now."""
        batch = self._batch
        if self._cancelled:
            self._cancelled = False
            self._drop_cancelled()
        running = len(batch.sequences)
        tokens, positions = batch.last_tokens()
        spans, twins = self._admit()
        if not batch.sequences:
            return []
        spans = self._feed_all_but_last(spans)
        logits = self.model.forward(batch.cache, tokens, positions, spans)
        rows = np.arange(len(batch.sequences))  # which row of the logits is a slot's
        rows[[span.slot for span in spans]] = running + np.arange(len(spans))
        for source, slot in twins:
            batch.cache.reserve(slot + 1, 1)
            batch.cache.copy(source, slot, int(batch.length[source]))
            rows[slot] = rows[source]
        self._extend(logits[rows] if twins else logits)
        finished, self._finished = self._finished, []
        return finished

    def _drop_cancelled(self) -> None:
        batch = self._batch
        for slot in reversed(range(len(batch.sequences))):
            if batch.sequences[slot].pending.cancelled:
                batch.remove(slot)

    def _admit(self) -> tuple[list[Span], list[tuple[int, int]]]:
        """Move waiting sequences into free slots, as many as one pass may take.

        Returns:
            The spans to feed, in order of their slots, and (slot, twin) pairs: sequences with the same
            prompt, such as the n samples of a request, share one prefill.
        """
        batch = self._batch
        running = len(batch.sequences)
        first: dict[tuple[int, ...], int] = {}
        spans: list[Span] = []
        twins: list[tuple[int, int]] = []
        budget = _PREFILL_TOKENS
        while self._waiting and len(batch.sequences) < batch.size and budget > 0:
            sequence = self._waiting.popleft()
            if sequence.pending.cancelled:
                continue
            prompt = sequence.pending.request.prompt
            shared = batch.longest_prefix(prompt, among=running)
            slot = batch.add(sequence)
            if sequence.pending.request.prompt_logprobs is not None and sequence.index == 0:
                start = self._score_prompt(slot)
            elif tuple(prompt) in first:
                twins.append((first[tuple(prompt)], slot))
                continue
            else:
                # What begins like a running sequence starts from its keys and values.
                start = shared.length
                if start:
                    batch.cache.reserve(slot + 1, start)
                    batch.cache.copy(shared.slot, slot, start)
            first[tuple(prompt)] = slot
            spans.append(Span(slot, start, np.array(prompt[start:], np.int64)))
            budget -= len(prompt) - start
        return spans, twins

    def _feed_all_but_last(self, spans: list[Span]) -> list[Span]:
        """Feed long spans up to their last chunk, and return what is left of all."""
        while any(len(span.tokens) > _CHUNK for span in spans):
            long = [Span(s.slot, s.start, s.tokens[:_CHUNK]) for s in spans if len(s.tokens) > _CHUNK]
            self.model.forward(self._batch.cache, _NO_TOKENS, _NO_TOKENS, long)
            spans = [
                Span(s.slot, s.start + _CHUNK, s.tokens[_CHUNK:]) if len(s.tokens) > _CHUNK else s
                for s in spans
            ]
        return spans

    def _score_prompt(self, slot: int) -> int:
        """Feed a slot's prompt but for its last token and record the log-probabilities of what follows.

        Returns how many tokens were fed.
        """
        pending = self._batch.sequences[slot].pending
        request = pending.request
        prompt = np.array(request.prompt, np.int64)
        for start in range(0, len(prompt) - 1, _CHUNK):
            span = Span(slot, start, prompt[start : min(start + _CHUNK, len(prompt) - 1)])
            logits = self.model.forward(self._batch.cache, _NO_TOKENS, _NO_TOKENS, [span], all_logits=True)
            following = prompt[start + 1 : start + 1 + len(span.tokens)]
            for row, token in zip(log_softmax(logits), following, strict=True):
                pending.prompt_scores.append(score(row, int(token), request.prompt_logprobs or 0))
        return len(prompt) - 1

    def _extend(self, logits: Array) -> None:
        """Add one token to every slot, given its row of the logits, and take out the finished ones."""
        batch = self._batch
        slots = np.arange(len(batch.sequences))
        step = batch.length[slots] - batch.prompt_length[slots]
        tokens = choose(logits, batch.sampling(slots), step)
        ended = self._ends[tokens]
        batch.append(slots, tokens)
        full = step + 1 >= batch.max_tokens[slots]
        for slot in np.flatnonzero(batch.watched[slots]):
            sequence, token = batch.sequences[slot], int(tokens[slot])
            request = sequence.pending.request
            if request.logprobs is not None and request.max_tokens > 0:
                sequence.scores.append(score(log_softmax(logits[slot]), token, request.logprobs))
            if not ended[slot] and sequence.meets_stop(self.tokenizer, token):
                ended[slot] = True
        # From the back: removing a slot moves the last one into its place.
        for slot in np.flatnonzero(ended | full)[::-1]:
            self._finish(int(slot), stopped=bool(ended[slot]))

    def _finish(self, slot: int, *, stopped: bool) -> None:
        sequence = self._batch.sequences[slot]
        pending, limit = sequence.pending, sequence.pending.request.max_tokens
        pending.samples[sequence.index] = Sample(
            # Scoring a prompt asks for no token at all, and a step gives one.
            tokens=self._batch.generated(slot)[:limit],
            finish_reason="stop" if stopped and limit > 0 else "length",
            text_until_stop=sequence.text_until_stop,
            scores=sequence.scores,
        )
        self._batch.remove(slot)
        if not pending.missing:
            self._finished.append(pending)
