from __future__ import annotations

import math

import numpy as np
import pytest

from evalcore.serving.embedded.sampling import Sampling, choose, log_softmax, uniform

PROBABILITIES = np.array([0.4, 0.3, 0.15, 0.1, 0.04, 0.01])
LOGITS = np.log(PROBABILITIES).astype(np.float32)
DRAWS = 20_000


def draw(
    temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, logits: np.ndarray = LOGITS
) -> np.ndarray:
    """Frequencies over DRAWS tokens, each of a sequence of its own."""
    sampling = Sampling(
        np.full(DRAWS, temperature),
        np.full(DRAWS, top_k),
        np.full(DRAWS, top_p),
        np.arange(DRAWS, dtype=np.uint64),
    )
    tokens = choose(np.tile(logits, (DRAWS, 1)), sampling, np.zeros(DRAWS, np.int64))
    return np.bincount(tokens, minlength=len(logits)) / DRAWS


def renormalised(kept: int, temperature: float = 1.0) -> np.ndarray:
    weights = PROBABILITIES ** (1 / temperature)
    weights[kept:] = 0
    return weights / weights.sum()


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, PROBABILITIES),
        ({"temperature": 0.0}, [1, 0, 0, 0, 0, 0]),
        ({"temperature": 1e-6}, [1, 0, 0, 0, 0, 0]),
        ({"temperature": 0.5}, renormalised(6, 0.5)),
        ({"temperature": 2.0}, renormalised(6, 2.0)),
        ({"top_k": 1}, [1, 0, 0, 0, 0, 0]),
        ({"top_k": 3}, renormalised(3)),
        ({"top_k": 100}, PROBABILITIES),
        ({"top_p": 0.01}, [1, 0, 0, 0, 0, 0]),
        ({"top_p": 0.69}, renormalised(2)),
        ({"top_p": 0.71}, renormalised(3)),
        # top_k first: of the three kept, .4 and .3 hold .82 of the weight.
        ({"top_k": 3, "top_p": 0.8}, renormalised(2)),
        ({"top_k": 3, "top_p": 0.85}, renormalised(3)),
    ],
)
def test_tokens_are_drawn_with_their_probabilities(
    parameters: dict[str, float], expected: list[float]
) -> None:
    spread = 4 * np.sqrt(np.array(expected) * (1 - np.array(expected)) / DRAWS)
    assert (np.abs(draw(**parameters) - expected) <= spread).all()


def test_a_token_of_no_weight_is_never_drawn() -> None:
    logits = np.array([-np.inf, 0.0, -np.inf, 0.0, -np.inf], np.float32)
    found = draw(logits=logits)
    assert found[[0, 2, 4]].sum() == 0
    assert 0.48 < found[1] < 0.52


def test_a_sequence_does_not_depend_on_its_neighbours() -> None:
    random = np.random.RandomState(0)
    logits = random.standard_normal((50, 300)).astype(np.float32) * 3
    sampling = Sampling(
        random.choice([0.0, 0.7, 1.3], 50),
        random.choice([0, 5], 50),
        random.choice([0.9, 1.0], 50),
        np.arange(50, dtype=np.uint64),
    )
    steps = random.randint(0, 9, 50)
    together = choose(logits, sampling, steps)
    alone = [choose(logits[[i]], sampling.rows(np.array([i])), steps[[i]])[0] for i in range(50)]
    assert together.tolist() == alone


def test_random_numbers_of_neighbouring_seeds_and_steps_are_unrelated() -> None:
    seeds, steps = np.meshgrid(np.arange(300, dtype=np.uint64), np.arange(300))
    numbers = uniform(seeds.ravel(), steps.ravel()).reshape(300, 300)
    assert len(np.unique(numbers)) > 89_900
    assert abs(numbers.mean() - 0.5) < 0.004
    assert abs(numbers.std() - math.sqrt(1 / 12)) < 0.004
    for other in (numbers[1:], numbers[:, 1:]):
        same = numbers[: other.shape[0], : other.shape[1]]
        assert abs(np.corrcoef(same.ravel(), other.ravel())[0, 1]) < 0.015


def test_log_softmax() -> None:
    np.testing.assert_allclose(np.exp(log_softmax(LOGITS + 50)), PROBABILITIES, rtol=1e-5)
