"""Continuous batching: one thread that prefills new sequences and decodes all running ones together.

    engine = Engine(Llama(config, weights), tokenizer, max_batch=64, max_length=256)
    engine.start()
    samples = engine.submit(Request(prompt=[1, 4, 90], n=8, temperature=0.8, seed=1)).result()
    samples[0].tokens, samples[0].finish_reason
    engine.stop()

Requests are admitted between steps, in the order they came. Cancelling a request's future (its client
went away) frees its slots at the next step.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections import deque
from concurrent.futures import Future, InvalidStateError

import numpy as np
from tokenizers import Tokenizer

from evalcore.errors import ServerError
from evalcore.serving.embedded.batch import Batch, Request, Running, Sample
from evalcore.serving.embedded.model import Llama, Span
from evalcore.serving.embedded.sampling import choose, log_softmax
from evalcore.serving.embedded.weights import Array

log = logging.getLogger(__name__)

# Tokens fed to one slot in one pass, and of all prompts together: they bound the memory that attention
# scores and hidden states take, and how long running sequences wait for a new one.
_CHUNK = 512
_PREFILL_TOKENS = 2048
_NO_TOKENS = np.array([], np.int64)


class Engine:
    """Owns the batch and its thread; every other thread speaks to it through ``submit``."""

    def __init__(self, model: Llama, tokenizer: Tokenizer, *, max_batch: int, max_length: int) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.max_length = max_length
        self._batch = Batch(model.config, max_batch, max_length)
        self._incoming: queue.SimpleQueue[Running | None] = queue.SimpleQueue()
        self._waiting: deque[Running] = deque()
        self._ends = np.zeros(model.config.vocab_size, np.bool_)
        self._ends[list(model.config.eos_ids)] = True
        self._thread = threading.Thread(target=self._loop, name="evalcore-engine", daemon=True)
        self._stopping = False
        self._cancelled = False  # some request was, since the last step
        self.failure: BaseException | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread; requests that are not finished fail with ServerError."""
        self._stopping = True
        self._incoming.put(None)
        self._thread.join()

    def submit(self, request: Request) -> Future[list[Sample]]:
        """Queue a request; the future holds its ``n`` samples in order of their seeds.

        The prompt must leave room for an answer: 0 < len(prompt) and len(prompt) + max_tokens <=
        max_length. The future fails with ServerError if the engine dies or stops.
        """
        future: Future[list[Sample]] = Future()
        group: list[Running] = []
        group += [Running(request, index, future, group) for index in range(request.n)]
        future.add_done_callback(self._note_cancelled)
        for sequence in group:
            self._incoming.put(sequence)
        if self.failure is not None or self._stopping:
            self._fail(group)
        return future

    def _note_cancelled(self, future: Future[list[Sample]]) -> None:
        if future.cancelled():
            self._cancelled = True

    def _loop(self) -> None:
        try:
            while not self._stopping:
                self._step()
        except Exception as error:  # a bug or out of memory: nobody may wait for an answer for ever
            log.exception("the engine died")
            self.failure = error
        self._receive(wait=False)
        self._fail([*self._batch.sequences, *self._waiting])

    def _fail(self, sequences: list[Running]) -> None:
        reason = f"the engine died: {self.failure!r}" if self.failure else "the server is shutting down"
        for future in {s.future for s in sequences}:
            with contextlib.suppress(InvalidStateError):  # answered or cancelled meanwhile
                future.set_exception(ServerError(reason))

    def _step(self) -> None:
        batch = self._batch
        self._receive(wait=not batch.sequences and not self._waiting)
        if self._cancelled:
            self._cancelled = False
            self._drop_cancelled()
        running = len(batch.sequences)
        tokens, positions = batch.last_tokens()
        spans, twins = self._admit()
        if not batch.sequences:
            return
        spans = self._feed_all_but_last(spans)
        logits = self.model.forward(batch.cache, tokens, positions, spans)
        rows = np.arange(len(batch.sequences))  # which row of the logits is a slot's
        rows[[span.slot for span in spans]] = running + np.arange(len(spans))
        for source, slot in twins:
            batch.cache.reserve(slot + 1, 1)
            batch.cache.copy(source, slot, int(batch.length[source]))
            rows[slot] = rows[source]
        self._extend(logits[rows] if twins else logits)

    def _receive(self, *, wait: bool) -> None:
        while wait or not self._incoming.empty():
            sequence = self._incoming.get()
            if sequence is not None:
                self._waiting.append(sequence)
            wait = False

    def _drop_cancelled(self) -> None:
        batch = self._batch
        for slot in reversed(range(len(batch.sequences))):
            if batch.sequences[slot].future.cancelled():
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
            if sequence.future.cancelled():
                continue
            prompt = sequence.request.prompt
            shared = batch.longest_prefix(prompt, among=running)
            slot = batch.add(sequence)
            if sequence.request.prompt_logprobs is not None and sequence.index == 0:
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
        sequence = self._batch.sequences[slot]
        request = sequence.request
        prompt = np.array(request.prompt, np.int64)
        for start in range(0, len(prompt) - 1, _CHUNK):
            span = Span(slot, start, prompt[start : min(start + _CHUNK, len(prompt) - 1)])
            logits = self.model.forward(self._batch.cache, _NO_TOKENS, _NO_TOKENS, [span], all_logits=True)
            following = prompt[start + 1 : start + 1 + len(span.tokens)]
            for row, token in zip(log_softmax(logits), following, strict=True):
                sequence.prompt_scores.append(sequence.score(row, int(token), request.prompt_logprobs))
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
            if sequence.request.logprobs is not None and sequence.request.max_tokens > 0:
                chances = log_softmax(logits[slot])
                sequence.scores.append(sequence.score(chances, token, sequence.request.logprobs))
            if not ended[slot] and sequence.meets_stop(self.tokenizer, token):
                ended[slot] = True
        # From the back: removing a slot moves the last one into its place.
        for slot in np.flatnonzero(ended | full)[::-1]:
            self._finish(int(slot), stopped=bool(ended[slot]))

    def _finish(self, slot: int, *, stopped: bool) -> None:
        sequence = self._batch.sequences[slot]
        sequence.sample = Sample(
            tokens=self._batch.generated(slot)[: sequence.request.max_tokens],
            finish_reason="stop" if stopped and sequence.request.max_tokens > 0 else "length",
            text_until_stop=sequence.text_until_stop,
            scores=sequence.scores,
            prompt_scores=sequence.group[0].prompt_scores,
        )
        self._batch.remove(slot)
        samples = [s.sample for s in sequence.group]
        complete = [s for s in samples if s is not None]
        if len(complete) == len(samples) and sequence.future.set_running_or_notify_cancel():
            sequence.future.set_result(complete)
