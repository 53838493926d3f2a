from __future__ import annotations

import numpy as np
import pytest

from evalcore.serving.embedded.model import KVCache, Llama, Span
from evalcore.serving.embedded.weights import load_config, load_weights
from random_llama import write_llama

NONE = np.array([], np.int64)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Llama:
    folder = write_llama(tmp_path_factory.mktemp("llama"))
    config = load_config(folder)
    return Llama(config, load_weights(folder, config))


def prompts(*lengths: int) -> list[np.ndarray]:
    return [np.random.RandomState(length).randint(0, 256, length) for length in lengths]


def all_at_once(model: Llama, tokens: np.ndarray) -> np.ndarray:
    return model.forward(KVCache(model.config, 1, 128), NONE, NONE, [Span(0, 0, tokens)], all_logits=True)


def test_decoding_token_by_token_gives_the_logits_of_the_whole(model: Llama) -> None:
    (tokens,) = prompts(80)
    cache = KVCache(model.config, 1, 128)
    steps = [model.forward(cache, tokens[[i]], np.array([i]))[0] for i in range(len(tokens))]
    np.testing.assert_allclose(np.array(steps), all_at_once(model, tokens), atol=1e-4)


def test_slots_of_different_lengths_and_new_prompts_share_a_pass(model: Llama) -> None:
    first, second, third = prompts(9, 33, 70)
    cache = KVCache(model.config, 4, 128)
    model.forward(cache, NONE, NONE, [Span(0, 0, first[:-1]), Span(1, 0, second[:-1])])
    tokens, positions = np.array([first[-1], second[-1]]), np.array([len(first) - 1, len(second) - 1])
    logits = model.forward(cache, tokens, positions, [Span(2, 0, third[:40])])
    rest = model.forward(cache, NONE, NONE, [Span(2, 40, third[40:])])
    for row, tokens in zip([*logits[:2], rest[0]], (first, second, third), strict=True):
        np.testing.assert_allclose(row, all_at_once(model, tokens)[-1], atol=1e-4)


def test_a_copied_slot_goes_on_like_the_original(model: Llama) -> None:
    (tokens,) = prompts(20)
    cache = KVCache(model.config, 2, 128)
    model.forward(cache, NONE, NONE, [Span(0, 0, tokens), Span(1, 0, tokens[::-1].copy())])
    cache.copy(0, 1, 12)
    logits = model.forward(cache, NONE, NONE, [Span(1, 12, tokens[12:])])
    np.testing.assert_allclose(logits[0], all_at_once(model, tokens)[-1], atol=1e-4)


def test_the_cache_grows_with_use_and_keeps_what_it_holds(model: Llama) -> None:
    cache = KVCache(model.config, 64, 128)
    assert cache.nbytes == 0
    (tokens,) = prompts(30)
    model.forward(cache, NONE, NONE, [Span(0, 0, tokens)])
    small, held = cache.nbytes, cache.keys[:, 0, :, :30].copy()
    cache.reserve(64, 128)
    assert small < cache.nbytes / 16
    assert cache.keys.shape[1] == 64
    assert cache.keys.shape[3] == 128
    np.testing.assert_array_equal(cache.keys[:, 0, :, :30], held)


def test_extreme_activations_give_no_warning_and_no_nan(model: Llama) -> None:
    weights = model.weights.layers[0]
    factor = np.float32(1e4)
    weights.gate_up[:] *= factor
    try:
        logits = all_at_once(model, prompts(8)[0])
    finally:
        weights.gate_up[:] /= factor
    assert np.isfinite(logits).all()
