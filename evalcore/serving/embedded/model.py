"""A Llama forward pass in numpy, for models small enough for a CPU.

    model = Llama(load_config(folder), load_weights(folder, config))
    cache = KVCache(model.config, max_slots=64, max_length=256)
    none = np.array([], np.int64)
    logits = model.forward(cache, none, none, [Span(slot=0, start=0, tokens=np.array([1, 4, 90]))])
    logits = model.forward(cache, tokens=np.array([17]), positions=np.array([3]))

A slot of the cache holds one sequence. Running sequences lie in slots 0 … B-1, so that a decode step
attends to a view of the cache and copies nothing; prompts of new ones ride along in the same pass. All
arithmetic is float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evalcore.serving.embedded.weights import Array, LlamaConfig, Weights

Ints = NDArray[np.int64]

_FIRST_POSITIONS = 64
_FIRST_SLOTS = 4


class Span(NamedTuple):
    """Tokens to be fed to one slot, the first of them at position ``start``."""

    slot: int
    start: int
    tokens: Ints


class KVCache:
    """Keys and values, (layers, slots, kv heads, positions, head_dim) each.

    It grows by doubling as slots and positions are used, up to ``max_slots`` x ``max_length``.
    """

    def __init__(self, config: LlamaConfig, max_slots: int, max_length: int) -> None:
        self._max_slots, self._max_length = max_slots, max_length
        # Zeros, not empty: what lies beyond a sequence's end has weight 0, and 0 x NaN would be NaN.
        shape = (config.layers, 0, config.kv_heads, 0, config.head_dim)
        self.keys: Array = np.zeros(shape, np.float32)
        self.values: Array = np.zeros(shape, np.float32)

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes

    def reserve(self, slots: int, length: int) -> None:
        """Make room for positions 0 … length-1 of slots 0 … slots-1."""
        layers, old_slots, kv_heads, old_length, head_dim = self.keys.shape
        if slots <= old_slots and length <= old_length:
            return
        new_slots = _grown(old_slots, slots, _FIRST_SLOTS, self._max_slots)
        new_length = _grown(old_length, length, _FIRST_POSITIONS, self._max_length)
        for name in ("keys", "values"):
            grown = np.zeros((layers, new_slots, kv_heads, new_length, head_dim), np.float32)
            grown[:, :old_slots, :, :old_length] = getattr(self, name)
            setattr(self, name, grown)

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first ``length`` positions of one slot to another."""
        for array in (self.keys, self.values):
            array[:, target, :, :length] = array[:, source, :, :length]


class Llama:
    """The network; it holds no state of any sequence."""

    def __init__(self, config: LlamaConfig, weights: Weights) -> None:
        self.config = config
        self.weights = weights
        self._scale = np.float32(config.head_dim**-0.5)

    def forward(
        self,
        cache: KVCache,
        tokens: Ints,
        positions: Ints,
        spans: Sequence[Span] = (),
        *,
        all_logits: bool = False,
    ) -> Array:
        """Feed one token to each of slots 0 … B-1, and each span to its own slot, in one pass.

        Returns:
            The logits after the B tokens and after each span's last one, (B + spans, vocabulary); with
            ``all_logits`` after every token of the spans.
        """
        batch, length = len(tokens), int(positions.max(initial=-1)) + 1
        cache.reserve(
            max([batch, *(span.slot + 1 for span in spans)]),
            max([length, *(span.start + len(span.tokens) for span in spans)]),
        )
        starts = np.cumsum([batch, *(len(span.tokens) for span in spans)])
        rows = [slice(start, end) for start, end in pairwise(starts)]
        # (B, 1, 1, length), added to the scores: -inf where a slot holds no token yet.
        unseen = np.where(np.arange(length) > positions[:, None], -np.inf, 0.0)
        mask = unseen.astype(np.float32)[:, None, None]

        def attend(layer: int, query: Array, key: Array, value: Array) -> Array:
            keys, values = cache.keys[layer], cache.values[layer]
            mixed = np.empty_like(query)
            if batch:
                keys[np.arange(batch), :, positions] = key[:batch]
                values[np.arange(batch), :, positions] = value[:batch]
                mixed[:batch] = self._attend_slots(
                    query[:batch], keys[:batch, :, :length], values[:batch, :, :length], mask
                )
            for span, own in zip(spans, rows, strict=True):
                end = span.start + len(span.tokens)
                own_keys, own_values = keys[span.slot, :, :end], values[span.slot, :, :end]
                own_keys[:, span.start :] = key[own].swapaxes(0, 1)
                own_values[:, span.start :] = value[own].swapaxes(0, 1)
                mixed[own] = self._attend_span(query[own], own_keys, own_values, span.start)
            return mixed

        fed = np.concatenate([tokens, *(span.tokens for span in spans)])
        at = np.concatenate([positions, *(np.arange(len(s.tokens)) + s.start for s in spans)])
        hidden = self._layers(fed, at, attend)
        if not all_logits:
            hidden = hidden[np.concatenate([np.arange(batch), starts[1:] - 1])]
        logits: Array = self._norm(hidden, self.weights.norm) @ self.weights.head
        return logits

    def _attend_slots(self, query: Array, keys: Array, values: Array, mask: Array) -> Array:
        """Attention of one token of every slot, (B, heads, d), over (B, kv heads, length, d)."""
        grouped = query.reshape(*keys.shape[:2], -1, self.config.head_dim)
        scores = grouped @ keys.swapaxes(-1, -2)
        scores += mask
        mixed: Array = _softmax(scores) @ values
        return mixed.reshape(query.shape)

    def _attend_span(self, query: Array, keys: Array, values: Array, start: int) -> Array:
        """Causal attention of one slot's last tokens, (T, heads, d), over (kv heads, start + T, d)."""
        count, (kv_heads, end, head_dim) = len(query), keys.shape
        # Query heads of one kv head together, (kv heads, group x T, d): one product instead of a group.
        grouped = query.swapaxes(0, 1).reshape(kv_heads, -1, head_dim)
        scores = (grouped @ keys.swapaxes(-1, -2)).reshape(kv_heads, -1, count, end)
        later = np.arange(end) > np.arange(start, end)[:, None]
        scores += np.where(later, np.float32(-np.inf), np.float32(0.0))
        mixed = _softmax(scores).reshape(kv_heads, -1, end) @ values
        return mixed.reshape(query.shape[1], count, -1).swapaxes(0, 1)

    def _layers(
        self, tokens: Ints, positions: Ints, attend: Callable[[int, Array, Array, Array], Array]
    ) -> Array:
        """The hidden states after the last layer, (tokens, hidden); ``attend`` mixes over positions."""
        config = self.config
        angles = positions.astype(np.float32)[:, None, None] * config.frequencies
        cos, sin = np.cos(angles), np.sin(angles)
        x = self.weights.embedding[tokens]
        for index, layer in enumerate(self.weights.layers):
            qkv = self._norm(x, layer.norm_attention) @ layer.qkv
            heads = qkv.reshape(len(x), -1, config.head_dim)
            turned = _rotate(heads[:, : -config.kv_heads], cos, sin)
            query, key = turned[:, : config.heads] * self._scale, turned[:, config.heads :]
            mixed = attend(index, query, key, heads[:, -config.kv_heads :])
            x += mixed.reshape(len(x), -1) @ layer.out
            wide = self._norm(x, layer.norm_mlp) @ layer.gate_up
            size = len(layer.down)
            x += (_silu(wide[:, :size]) * wide[:, size:]) @ layer.down
        return x

    def _norm(self, x: Array, weight: Array) -> Array:
        """RMSNorm over the last axis."""
        mean_square = np.einsum("ij,ij->i", x, x)[:, None] / np.float32(x.shape[1])
        normed: Array = x / np.sqrt(mean_square + np.float32(self.config.norm_eps))
        normed *= weight
        return normed


def _rotate(x: Array, cos: Array, sin: Array) -> Array:
    """Rotary embedding; dimension i pairs with i + head_dim / 2, as in Hugging Face checkpoints."""
    half = x.shape[-1] // 2
    first, second = x[..., :half], x[..., half:]
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def _silu(x: Array) -> Array:
    with np.errstate(over="ignore"):  # exp(-x) may become inf, and x / inf is the 0 it should be
        gated: Array = x / (1 + np.exp(-x))
    return gated


def _softmax(scores: Array) -> Array:
    """Softmax over the last axis, in place."""
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return scores


def _grown(size: int, needed: int, first: int, limit: int) -> int:
    size = max(size, first)
    while size < needed:
        size *= 2
    return max(needed, min(size, limit))
