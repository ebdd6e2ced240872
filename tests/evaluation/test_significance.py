"""Comparisons: intervals that cover, a test that errs as often as it says, seeds counted, Holm as in the textbook."""

import math

import numpy as np
import pytest
from scipy.stats import false_discovery_control, pearsonr, rankdata

from embedsmith.evaluation.correlation import spearman
from embedsmith.evaluation.significance import (
    SeedScores,
    TaskScores,
    compare,
    holm,
    permutation_draws,
    spread_between_seeds,
)
from embedsmith.records.results import Verdict


def _task(num_pairs: int, noise: dict[str, list[float]], *, seed: int = 0) -> TaskScores:
    """Models that see the gold score through noise of their own and noise they share."""
    random = np.random.default_rng(seed)
    gold = random.integers(0, 26, num_pairs) / 5
    shared = random.standard_normal(num_pairs)
    return TaskScores(
        gold,
        {
            label: SeedScores([gold + shared + size * random.standard_normal(num_pairs) for size in sizes])
            for label, sizes in noise.items()
        },
    )


def test_a_model_against_itself_cannot_be_told() -> None:
    task = _task(200, {"a": [1.0]})
    same = TaskScores(task.gold, {"a": task.models["a"], "a (again)": task.models["a"]})
    for spread in (0.0, 0.005):
        (found,) = compare({"one": same, "two": same}, num_draws=500, seed_spread=spread)
        differences = [*found.tasks.values(), found.average]
        assert [one.verdict for one in differences] == [Verdict.CANNOT_TELL] * 3
        assert [one.gain for one in differences] == [0] * 3
        assert [one.p_value for one in differences] == [1] * 3


def test_a_clear_difference_is_told_in_both_directions() -> None:
    task = _task(400, {"bad": [6.0], "good": [0.2], "worse": [60.0]})
    good, worse = compare({"task": task}, num_draws=500)
    assert (good.verdict, worse.verdict) == (Verdict.BETTER, Verdict.WORSE)
    assert good.tasks["task"].gain == pytest.approx(
        spearman(task.models["good"].similarities[0], task.gold)
        - spearman(task.models["bad"].similarities[0], task.gold)
    )
    lower, upper = good.average.ci95
    assert lower < good.average.gain < upper
    assert good.sentence.startswith("good is better than bad: +")


def test_paired_intervals_are_much_narrower_than_unpaired_ones_and_cover() -> None:
    """Gold and two models jointly normal: the true difference of Spearman correlations is known (Kendall)."""
    num_trials, num_pairs = 150, 120
    r = (0.75, 0.7)
    truth = 6 / math.pi * (math.asin(r[1] / 2) - math.asin(r[0] / 2))
    covariance = np.array([[1, *r], [r[0], 1, 0.9], [r[1], 0.9, 1]])
    random = np.random.default_rng(1)
    hits, rejected, widths = 0, 0, []
    for trial in range(num_trials):
        gold, first, second = random.multivariate_normal(np.zeros(3), covariance, size=num_pairs).T
        task = TaskScores(gold, {"a": SeedScores([first]), "b": SeedScores([second])})
        (found,) = compare({"t": task}, num_draws=200, seed_spread=0, seed=trial)
        lower, upper = found.average.ci95
        hits += lower <= truth <= upper
        rejected += found.verdict is not Verdict.CANNOT_TELL
        widths.append(upper - lower)
    # 95 % of 150 with a standard deviation of 1.8 %
    assert 0.89 <= hits / num_trials <= 0.99
    assert 0 < rejected < num_trials
    # One score alone has a standard error of (1 - r^2) / sqrt(n), roughly; two independent ones sqrt(2) times that.
    assert np.mean(widths) < 0.8 * 2 * 1.96 * math.sqrt(2) * (1 - 0.7**2) / math.sqrt(num_pairs)


def test_the_test_errs_as_often_as_it_says() -> None:
    """Two models that are equally good: a p-value below 0.05 comes up in one of twenty trials."""
    random, num_trials = np.random.default_rng(2), 300
    covariance = np.array([[1, 0.7, 0.7], [0.7, 1, 0.8], [0.7, 0.8, 1]])
    errors = 0
    for trial in range(num_trials):
        gold, first, second = random.multivariate_normal(np.zeros(3), covariance, size=80).T
        draws = permutation_draws([first], [second], gold, num_draws=200, seed=trial)
        difference = spearman(second, gold) - spearman(first, gold)
        errors += np.mean(np.abs(draws) >= abs(difference)) < 0.05
    assert 0.02 <= errors / num_trials <= 0.09  # 5 % with a standard deviation of 1.3 %


def test_permutations_equal_swaps_written_out() -> None:
    task = _task(30, {"a": [1.0], "b": [2.0]})
    (first,), (second,) = (task.models[label].similarities for label in "ab")
    draws = permutation_draws([first], [second], task.gold, num_draws=3, seed=4)
    bits = np.frombuffer(np.random.default_rng(4).bytes(3 * 4), dtype=np.uint8).reshape(3, 4)
    keeps = np.unpackbits(bits, axis=1, count=30).astype(bool)
    x, y, gold = rankdata(first), rankdata(second), rankdata(task.gold)
    for keep, draw in zip(keeps, draws, strict=True):
        left, right = np.where(keep, x, y), np.where(keep, y, x)
        expected = pearsonr(right, gold).statistic - pearsonr(left, gold).statistic
        assert draw == pytest.approx(expected, abs=1e-12)


def test_seeds_of_one_model_count_as_one_and_widen_the_interval() -> None:
    task = _task(300, {"a": [1.0, 1.1], "b": [1.0, 1.2, 0.9]})
    (found,) = compare({"t": task}, num_draws=400)
    means = {
        label: np.mean([spearman(values, task.gold) for values in scores.similarities])
        for label, scores in task.models.items()
    }
    assert found.average.gain == pytest.approx(means["b"] - means["a"])
    assert found.average.num_seeds == (2, 3)
    narrow, wide = (compare({"t": task}, num_draws=400, seed_spread=spread)[0].average.ci95 for spread in (0.001, 0.05))
    assert wide[1] - wide[0] > 2 * (narrow[1] - narrow[0])


def test_two_seeds_of_a_recipe_differ_by_chance() -> None:
    """Scores that scatter by the usual half point between seeds are told apart hardly ever."""
    random, told = np.random.default_rng(3), 0
    gold = np.linspace(0, 1, 2000)
    for trial in range(20):
        # 0.3 of noise gives a Spearman of about 0.69; a hundredth more or less moves it by about half a point
        sizes = 0.3 + 0.003 * random.standard_normal(2)
        models = {
            label: SeedScores([gold + size * np.random.default_rng(5).standard_normal(2000)])
            for label, size in zip("ab", sizes, strict=True)
        }
        (found,) = compare({"t": TaskScores(gold, models)}, num_draws=200, seed=trial)
        told += found.verdict is not Verdict.CANNOT_TELL
    assert told <= 3


def test_the_spread_between_seeds() -> None:
    assert spread_between_seeds([[0.8], [0.7]], usual=0.005) == (pytest.approx(0.005), 8)
    assert spread_between_seeds([[0.8], [0.7]], usual=0) == (0, 1)
    spread, degrees = spread_between_seeds([[0.80, 0.82], [0.70, 0.74, 0.72]], usual=0)
    squares = 0.01**2 * 2 + 0.02**2 * 2
    assert (spread, degrees) == (pytest.approx(math.sqrt(squares / 3)), 3)
    assert 0.005 < spread_between_seeds([[0.80, 0.82]], usual=0.005)[0] < spread


def test_holm_as_in_the_textbook() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1, 1]
    values = np.random.default_rng(0).random(20)
    assert (np.array(holm(values.tolist())) >= false_discovery_control(values) - 1e-12).all()
