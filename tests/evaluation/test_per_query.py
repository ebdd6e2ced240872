"""Scores of queries: intervals that cover, a test that errs as often as it says, resamples written out."""

import numpy as np
import pytest

from embedsmith.evaluation.per_query import QueryTask, bootstrap_means, mean_interval
from embedsmith.evaluation.significance import compare
from embedsmith.records.results import NDCG, Verdict


def _graded(size: int, *, random: np.random.Generator, shift: float = 0.0) -> np.ndarray:
    """Scores as nDCG@10 has them: many 0 and 1."""
    return np.clip(random.normal(0.6 + shift, 0.6, size), 0, 1)


def test_the_interval_of_a_mean_covers() -> None:
    random, num_trials = np.random.default_rng(0), 200
    truth = _graded(1_000_000, random=random).mean()
    intervals = [mean_interval(_graded(100, random=random), num_draws=300, seed=trial) for trial in range(num_trials)]
    assert 0.90 <= np.mean([lower <= truth <= upper for lower, upper in intervals]) <= 0.99  # 95 %, deviation 1.5 %


def test_every_array_is_resampled_alike() -> None:
    scores = np.random.default_rng(1).random(50)
    first, second = bootstrap_means([scores, 1 - scores], num_draws=20, seed=3)
    np.testing.assert_allclose(first + second, 1)
    assert len(set(first)) == 20


def test_permutations_equal_swaps_written_out() -> None:
    random = np.random.default_rng(2)
    first, second = random.random(9), random.random(9)
    draws = QueryTask({"a": [first], "b": [second]}).permutations("a", "b", num_draws=4, seed=5)
    signs = np.random.default_rng(5).integers(2, size=(4, 9), dtype=np.int8)
    for keep, draw in zip(signs.astype(bool), draws, strict=True):
        left, right = np.where(keep, first, second), np.where(keep, second, first)
        assert draw == pytest.approx(right.mean() - left.mean(), abs=1e-12)


def test_equally_good_models_are_told_apart_as_seldom_as_said_and_others_are() -> None:
    random, told, num_trials = np.random.default_rng(3), 0, 200
    for trial in range(num_trials):
        shared = random.normal(0, 0.4, 120)
        models = {label: [np.clip(0.5 + shared + random.normal(0, 0.2, 120), 0, 1)] for label in "ab"}
        (found,) = compare({"t": QueryTask(models)}, num_draws=200, seed_spread=0, metric=NDCG, seed=trial)
        told += found.verdict is not Verdict.CANNOT_TELL
    assert 0.005 <= told / num_trials <= 0.10  # 5 %, deviation 1.5 %
    better = [np.clip(one + 0.2, 0, 1) for one in models["a"]]
    (found,) = compare({"t": QueryTask({"a": models["a"], "b": better})}, num_draws=200, metric=NDCG)
    assert found.sentence.startswith("b is better than a: +")
    assert "points of nDCG@10 x 100" in found.sentence
    assert (found.units, found.average.num_pairs) == ("queries", 120)
