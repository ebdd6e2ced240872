"""Spearman equals scipy's; the bootstrap covers the truth about as often as it says."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from embedsmith.evaluation import correlation
from embedsmith.evaluation.correlation import bootstrap_interval, bootstrap_spearman, spearman

values = st.lists(st.integers(-3, 3), min_size=3, max_size=30)


@given(values, st.randoms())
def test_spearman_equals_scipy_with_ties(first: list[int], random) -> None:
    second = [random.randint(-2, 2) for _ in first]
    assume(len(set(first)) > 1 and len(set(second)) > 1)
    assert spearman(np.array(first), np.array(second)) == pytest.approx(spearmanr(first, second).statistic, abs=1e-12)


def test_known_orders() -> None:
    x = np.array([1.0, 2, 3, 4])
    assert spearman(x, x**3) == pytest.approx(1)
    assert spearman(x, -x) == pytest.approx(-1)


@pytest.mark.parametrize("bad", [[1.0, 1, 1], [1.0, np.nan, 2], [1.0, np.inf, 2]])
def test_what_cannot_be_ranked_is_an_error(bad: list[float]) -> None:
    for function in (spearman, bootstrap_interval):
        with pytest.raises(ValueError, match=r"constant|finite"):
            function(np.array(bad), np.array([1.0, 2, 3]))


def test_the_interval_covers_the_truth() -> None:
    """For a bivariate normal of correlation r, Spearman's is 6/pi asin(r/2) (Kendall and Gibbons 1990)."""
    random, r = np.random.default_rng(0), 0.7
    truth = 6 / math.pi * math.asin(r / 2)
    num_trials = 200
    hits = 0
    for trial in range(num_trials):
        x, noise = random.standard_normal((2, 150))
        lower, upper = bootstrap_interval(x, r * x + math.sqrt(1 - r * r) * noise, num_draws=200, seed=trial)
        hits += lower <= truth <= upper
    # 95 % of 200 with a standard deviation of 1.5 %; the percentile interval is a little narrow at this size
    assert 0.89 <= hits / num_trials <= 0.99


def test_the_interval_is_a_function_of_the_seed() -> None:
    x, y = np.random.default_rng(1).standard_normal((2, 50))
    assert bootstrap_interval(x, y) == bootstrap_interval(x, y) != bootstrap_interval(x, y, seed=1)
    lower, upper = bootstrap_interval(x, y)
    assert lower < spearman(x, y) < upper


@given(values, st.randoms(use_true_random=False))
def test_draws_equal_scipy_on_the_drawn_pairs(first: list[int], random) -> None:
    """Ranks by running sums of counts are those of the sample written out, ties and all."""
    x, y = np.array(first), np.array([random.randint(-2, 2) for _ in first])
    assume(len(set(first)) > 1 and len(set(y.tolist())) > 1)
    draws = bootstrap_spearman([x, y], y, num_draws=3, seed=5)
    drawing, by_y = np.random.default_rng(5), np.argsort(y, kind="stable")
    for draw in range(3):
        rows = by_y[drawing.integers(len(y), size=len(y), dtype=np.int32)]
        if len(set(x[rows].tolist())) > 1 and len(set(y[rows].tolist())) > 1:
            assert draws[0, draw] == pytest.approx(spearmanr(x[rows], y[rows]).statistic, abs=1e-12)
            assert draws[1, draw] == pytest.approx(1)
        else:
            assert np.isnan(draws[0, draw])


def test_draws_do_not_depend_on_how_many_are_computed_together(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = np.random.default_rng(2).integers(0, 9, size=(2, 30)).astype(float)
    together = bootstrap_spearman([x], y, num_draws=50, seed=3)
    for numbers in (1, 100, 10**6):
        monkeypatch.setattr(correlation, "_MOST_NUMBERS", numbers)
        np.testing.assert_array_equal(bootstrap_spearman([x], y, num_draws=50, seed=3), together)
