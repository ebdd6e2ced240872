"""Average precision: scikit-learn's; an interval that covers; a test that errs as often as it says."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from embedsmith.evaluation.correlation import mid_ranks
from embedsmith.evaluation.duplicates import (
    DuplicateTask,
    average_precision,
    average_precision_interval,
    bootstrap_average_precision,
)
from embedsmith.evaluation.significance import compare
from embedsmith.records.results import PRECISION, Verdict


def _cosines(is_duplicate: np.ndarray, *, random: np.random.Generator, gain: float = 1.0) -> np.ndarray:
    return random.standard_normal(len(is_duplicate)) + gain * is_duplicate


@pytest.mark.parametrize("digits", [0, 1, 12])
def test_it_is_scikit_learns_with_and_without_ties(digits: int) -> None:
    random = np.random.default_rng(digits)
    for _ in range(20):
        is_duplicate = random.random(37) < 0.3
        is_duplicate[0] = True
        cosines = np.round(_cosines(is_duplicate, random=random), digits)
        expected = average_precision_score(is_duplicate, cosines)
        assert average_precision(mid_ranks(cosines), is_duplicate) == pytest.approx(expected, abs=1e-12)


def test_resamples_equal_scikit_learns_on_the_same_rows() -> None:
    random = np.random.default_rng(0)
    is_duplicate = random.random(30) < 0.5
    first, second = (np.round(_cosines(is_duplicate, random=random), 1) for _ in range(2))
    draws = bootstrap_average_precision([mid_ranks(first), mid_ranks(second)], is_duplicate, num_draws=5, seed=3)
    rows_of = np.random.default_rng(3)
    for draw in range(5):
        rows = rows_of.integers(30, size=30)
        for cosines, found in zip((first, second), draws[:, draw], strict=True):
            assert found == pytest.approx(average_precision_score(is_duplicate[rows], cosines[rows]), abs=1e-12)
    assert np.isnan(bootstrap_average_precision([mid_ranks(first)], is_duplicate & False, num_draws=1, seed=0)).all()


def test_the_interval_covers() -> None:
    random, num_trials = np.random.default_rng(1), 200
    every = np.arange(200_000) % 2 == 0
    truth = average_precision_score(every, _cosines(every, random=random))
    hits = []
    for trial in range(num_trials):
        is_duplicate = random.random(200) < 0.5
        ranks = mid_ranks(_cosines(is_duplicate, random=random))
        lower, upper = average_precision_interval(ranks, is_duplicate, num_draws=200, seed=trial)
        hits.append(lower <= truth <= upper)
    assert 0.90 <= np.mean(hits) <= 0.99  # 95 %, deviation 1.5 %


def test_permutations_equal_swaps_written_out() -> None:
    random = np.random.default_rng(2)
    is_duplicate = np.arange(9) % 2 == 0
    first, second = (mid_ranks(random.random(9)) for _ in range(2))
    draws = DuplicateTask(is_duplicate, {"a": [first], "b": [second]}).permutations("a", "b", num_draws=4, seed=5)
    swaps = np.random.default_rng(5)
    for draw in draws:
        is_swapped = swaps.integers(2, size=9, dtype=np.int8).astype(bool)
        left, right = np.where(is_swapped, second, first), np.where(is_swapped, first, second)
        expected = average_precision_score(is_duplicate, right) - average_precision_score(is_duplicate, left)
        assert draw == pytest.approx(expected, abs=1e-12)


def test_equally_good_models_are_told_apart_as_seldom_as_said_and_others_are() -> None:
    random, told, num_trials = np.random.default_rng(3), 0, 200
    is_duplicate = np.arange(120) % 2 == 0
    for trial in range(num_trials):
        shared = _cosines(is_duplicate, random=random)
        models = {label: [mid_ranks(shared + random.normal(0, 0.5, 120))] for label in "ab"}
        task = DuplicateTask(is_duplicate, models)
        (found,) = compare({"t": task}, num_draws=200, seed_spread=0, metric=PRECISION, seed=trial)
        told += found.verdict is not Verdict.CANNOT_TELL
    assert 0.005 <= told / num_trials <= 0.10  # 5 %, deviation 1.5 %
    better = [mid_ranks(shared + is_duplicate)]
    (found,) = compare({"t": DuplicateTask(is_duplicate, {**models, "b": better})}, num_draws=200, metric=PRECISION)
    assert found.sentence.startswith("b is better than a: +")
    assert "points of average precision x 100" in found.sentence
    assert (found.units, found.average.num_pairs) == ("pairs", 120)
