"""Choose the next token of every sequence of a batch at once.

Each sequence has its own parameters and its own random stream: token ``t`` of a sequence is drawn with a
number that depends on its seed and ``t`` alone, so a sample does not depend on what else was running.

>>> uniform(np.array([7, 7, 8], np.uint64), np.array([0, 1, 0])).round(3)
array([0.524, 0.302, 0.926])
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evalcore.serving.embedded.weights import Array

Ints = NDArray[np.int64]
Seeds = NDArray[np.uint64]
Doubles = NDArray[np.float64]


class Sampling(NamedTuple):
    """Sampling parameters of a batch, one entry per sequence.

    temperature 0 is greedy; top_k 0 and top_p 1 are off.
    """

    temperature: Doubles
    top_k: Ints
    top_p: Doubles
    seed: Seeds

    def rows(self, index: Ints) -> Sampling:
        return Sampling(self.temperature[index], self.top_k[index], self.top_p[index], self.seed[index])


def choose(logits: Array, sampling: Sampling, step: Ints) -> Ints:
    """The next token of each row of ``logits`` (B, vocabulary); ``step`` counts a row's tokens so far.

    top_k is applied before top_p, as in vLLM and transformers. Tokens that tie with the last one kept by
    either are kept too.
    """
    tokens: Ints = logits.argmax(axis=1)
    drawn = np.flatnonzero(sampling.temperature > 0)
    if drawn.size:
        picked = sampling.rows(drawn)
        weights = _weights(logits[drawn], picked)
        cumulative = weights.cumsum(axis=1)
        # uniform() is at most 1 - 2**-32, so the target stays below the total and falls on a token
        # whose weight is above 0.
        target = uniform(picked.seed, step[drawn]) * cumulative[:, -1]
        tokens[drawn] = (cumulative <= target[:, None]).sum(axis=1)
    return tokens


def log_softmax(logits: Array) -> Array:
    """Log-probabilities before temperature, top_k and top_p, as OpenAI's and vLLM's servers report them."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    normalised: Array = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return normalised


def uniform(seed: Seeds, step: Ints) -> Doubles:
    """A number in [0, 1 - 2**-32] per row, the ``step``-th of the stream of ``seed``.

    SplitMix64 (Steele, Lea and Flood 2014), jumped to: its state advances by a constant, so the n-th
    output needs no loop. The seed is mixed first, or streams of neighbouring seeds would be shifted
    copies of one another.
    """
    state = _mix(seed) + (step.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    high = (_mix(state) >> np.uint64(32)).astype(np.float64)
    draws: Doubles = high / 2.0**32
    return draws


def _weights(logits: Array, sampling: Sampling) -> Doubles:
    """Unnormalised probabilities, 0 where top_k or top_p exclude a token."""
    shifted = (logits - logits.max(axis=1, keepdims=True)).astype(np.float64)
    with np.errstate(over="ignore"):  # a tiny temperature gives -inf, of weight 0
        weights: Doubles = np.exp(shifted / sampling.temperature[:, None])
    limited = np.flatnonzero((sampling.top_k > 0) | (sampling.top_p < 1))
    if limited.size:
        weights[limited] *= _kept(weights[limited], sampling.rows(limited))
    return weights


def _kept(weights: Doubles, sampling: Sampling) -> NDArray[np.bool_]:
    """Which tokens the rows' top_k and top_p keep."""
    ranked = -np.sort(-weights.astype(np.float32), axis=1)  # five times as fast as in float64
    rank = np.arange(weights.shape[1])
    top_k = np.where(sampling.top_k > 0, sampling.top_k, rank.size)[:, None]
    ranked[rank >= top_k] = 0
    # A token stays while the tokens before it hold less than top_p; the first one always does.
    reached = ranked.cumsum(axis=1, dtype=np.float64)
    last = 1 + np.count_nonzero(reached < sampling.top_p[:, None] * reached[:, -1:], axis=1)
    smallest = ranked[np.arange(len(ranked)), np.minimum(last, top_k[:, 0]) - 1]
    kept: NDArray[np.bool_] = weights.astype(np.float32) >= smallest[:, None]
    return kept


def _mix(x: Seeds) -> Seeds:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
