"""The running sequences, as rows of arrays: what each asked for and which tokens it has so far.

Slot ``i`` of every array, of the list and of the KV cache belong together, and slots 0 … B-1 are in use;
removing one moves the last into its place.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from evalcore.serving.embedded.model import Ints, KVCache
from evalcore.serving.embedded.sampling import Sampling
from evalcore.serving.embedded.weights import Array, LlamaConfig

_SEEDS = 2**64
_FIRST_POSITIONS = 64


@dataclass(frozen=True)
class Request:
    """``n`` answers to one prompt; sample ``i`` is drawn with ``seed + i``.

    temperature 0 is greedy, top_k 0 and top_p 1 are off. logprobs: how many alternatives to report
    beside each generated token, None for no log-probabilities; prompt_logprobs: the same for the prompt.
    """

    prompt: list[int]
    max_tokens: int
    n: int = 1
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    prompt_logprobs: int | None = None


class Score(NamedTuple):
    """A token's log-probability, and the most likely tokens in its place with theirs."""

    token: int
    logprob: float
    top: list[tuple[int, float]]


def score(chances: Array, token: int, top: int) -> Score:
    """The score of ``token``, given the log-probabilities of the whole vocabulary."""
    best = np.argsort(-chances, kind="stable")[:top] if top else ()
    return Score(token, float(chances[token]), [(int(t), float(chances[t])) for t in best])


class Sample(NamedTuple):
    """One answer. ``tokens`` include the end-of-text token and those of a stop string.

    text_until_stop: the text before the stop string that ended it, None if none did.
    """

    tokens: list[int]
    finish_reason: Literal["stop", "length"]
    text_until_stop: str | None
    scores: list[Score]


class Shared(NamedTuple):
    """A slot, and how many of its first tokens a prompt begins with."""

    slot: int
    length: int


@dataclass(eq=False)
class Pending:
    """A request under way; ``samples`` are in order of their seeds once ``missing`` is 0."""

    request: Request
    samples: dict[int, Sample] = field(default_factory=dict)
    prompt_scores: list[Score] = field(default_factory=list)
    cancelled: bool = False

    @property
    def missing(self) -> int:
        return self.request.n - len(self.samples)

    def result(self) -> list[Sample]:
        return [self.samples[index] for index in range(self.request.n)]


@dataclass(eq=False)
class Running:
    """One sequence of a request."""

    pending: Pending
    index: int
    scores: list[Score] = field(default_factory=list)
    text_until_stop: str | None = None
    _text: str = ""
    _stream: DecodeStream = field(default_factory=lambda: DecodeStream(skip_special_tokens=True))

    def meets_stop(self, tokenizer: Tokenizer, token: int) -> bool:
        """Add a token's text; True if a stop string is complete, wherever its tokens begin and end."""
        stops = self.pending.request.stop
        if not stops:
            return False
        chunk = self._stream.step(tokenizer, token)
        if not chunk:
            return False
        # A match that ends in this chunk begins at most one stop string's length before it.
        begin = max(0, len(self._text) - max(map(len, stops)))
        self._text += chunk
        found = [at for stop in stops if (at := self._text.find(stop, begin)) >= 0]
        if not found:
            return False
        self.text_until_stop = self._text[: min(found)]
        return True


class Batch:
    """The slots in use and their arrays; ``size`` slots at most."""

    def __init__(self, config: LlamaConfig, size: int, max_length: int) -> None:
        self.size = size
        self.cache = KVCache(config, size, max_length)
        self.sequences: list[Running] = []
        self.tokens: Ints = np.zeros((size, _FIRST_POSITIONS), np.int64)
        self.length: Ints = np.zeros(size, np.int64)  # prompt and generated tokens
        self.prompt_length: Ints = np.zeros(size, np.int64)
        self.max_tokens: Ints = np.zeros(size, np.int64)
        self.watched = np.zeros(size, np.bool_)  # those whose every token must be looked at
        self._sampling = Sampling(
            temperature=np.zeros(size), top_k=np.zeros(size, np.int64), top_p=np.ones(size),
            seed=np.zeros(size, np.uint64),
        )  # fmt: skip

    def add(self, sequence: Running) -> int:
        """Put a sequence into the next free slot and return it."""
        slot, request = len(self.sequences), sequence.pending.request
        self.sequences.append(sequence)
        self._widen(len(request.prompt))
        self.tokens[slot, : len(request.prompt)] = request.prompt
        self.length[slot] = self.prompt_length[slot] = len(request.prompt)
        self.max_tokens[slot] = request.max_tokens
        self.watched[slot] = bool(request.stop) or request.logprobs is not None
        self._sampling.temperature[slot] = request.temperature
        self._sampling.top_k[slot] = request.top_k
        self._sampling.top_p[slot] = request.top_p
        self._sampling.seed[slot] = np.uint64((request.seed + sequence.index) % _SEEDS)
        return slot

    def remove(self, slot: int) -> None:
        """Free a slot; the sequence in the last one moves there."""
        last = self.sequences.pop()
        end = len(self.sequences)
        if slot == end:
            return
        self.sequences[slot] = last
        for array in (self.tokens, self.length, self.prompt_length, self.max_tokens, self.watched):
            array[slot] = array[end]
        for column in self._sampling:
            column[slot] = column[end]
        self.cache.copy(end, slot, int(self.length[slot]))

    def append(self, slots: Ints, tokens: Ints) -> None:
        """Add one token to each of the slots."""
        self._widen(int(self.length[slots].max()) + 1)
        self.tokens[slots, self.length[slots]] = tokens
        self.length[slots] += 1

    def last_tokens(self) -> tuple[Ints, Ints]:
        """The last token of every slot in use, which the cache does not hold yet, and its position."""
        slots = np.arange(len(self.sequences))
        positions = self.length[slots] - 1
        return self.tokens[slots, positions], positions

    def generated(self, slot: int) -> list[int]:
        tokens: list[int] = self.tokens[slot, self.prompt_length[slot] : self.length[slot]].tolist()
        return tokens

    def sampling(self, slots: Ints) -> Sampling:
        return self._sampling.rows(slots)

    def longest_prefix(self, prompt: list[int], *, among: int) -> Shared:
        """The slot below ``among`` whose cached tokens begin most like ``prompt``, and how many do.

        The prompt's last token never counts: it must be fed for its logits.
        """
        count = min(len(prompt) - 1, self.tokens.shape[1])
        if not among or not count:
            return Shared(0, 0)
        cached = np.arange(count) < self.length[:among, None] - 1
        same = (self.tokens[:among, :count] == prompt[:count]) & cached
        lengths = np.where(same.all(axis=1), count, same.argmin(axis=1))
        slot = int(lengths.argmax())
        return Shared(slot, int(lengths[slot]))

    def _widen(self, length: int) -> None:
        if length > self.tokens.shape[1]:
            wider = np.zeros((self.size, max(length, 2 * self.tokens.shape[1])), np.int64)
            wider[:, : self.tokens.shape[1]] = self.tokens
            self.tokens = wider
