"""Spearman correlation and its bootstrap distribution: maths on arrays.

Cost: O(n log n) once, then O(n) per bootstrap draw. A draw only counts how often each pair came up; ranks follow from
running sums of those counts over an order that was sorted once.
"""

from collections.abc import Sequence

import numpy as np

NUM_DRAWS = 10_000
"""Resamples of a result that people read; its 95 % interval then moves by about a hundredth of its width by chance."""
_MOST_NUMBERS = 2**14
"""Of a block of draws that is computed together; a larger one would not stay in the processor's cache."""


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman correlation of two arrays (n,), ties at their average rank.

    Raises:
        ValueError: fewer than two values, values that are not finite, or a constant array (no ranking to compare).
    """
    if len(x) != len(y):
        raise ValueError(f"arrays differ in length: {len(x)} and {len(y)}")
    ranks_x, ranks_y = mid_ranks(x), mid_ranks(y)
    if np.ptp(ranks_x) == 0 or np.ptp(ranks_y) == 0:
        raise ValueError("an array is constant, so its correlation is not defined")
    return _correlation(ranks_x, ranks_y)


def mid_ranks(values: np.ndarray) -> np.ndarray:
    """Rank of each value (n,), from 1, ties at their average rank.

    Raises:
        ValueError: fewer than two values, or values that are not finite.
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) < 2 or not np.isfinite(values).all():
        raise ValueError("at least two finite values are needed")
    _, codes, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[codes]


def bootstrap_interval(
    x: np.ndarray, y: np.ndarray, *, num_draws: int = 1000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of `spearman(x, y)`: pairs are resampled and ranked anew in every draw.

    Args:
        x: (n,), and y: (n,).
        num_draws: resamples.
        seed: fixes the resamples.
        level: coverage, in (0, 1).

    Returns:
        (lower, upper).

    Raises:
        ValueError: as `spearman`.

    Reference: Efron and Tibshirani 1993, chapter 13.
    """
    return percentile_interval(bootstrap_spearman([x], y, num_draws=num_draws, seed=seed)[0], level=level)


def percentile_interval(draws: np.ndarray, *, level: float = 0.95) -> tuple[float, float]:
    """The middle `level` of the draws; draws that are not defined (NaN) are left out."""
    lower, upper = np.nanquantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(lower), float(upper)


def bootstrap_spearman(xs: Sequence[np.ndarray], y: np.ndarray, *, num_draws: int, seed: int) -> np.ndarray:
    """Spearman correlation of each x with y over the same resamples of the pairs.

    Args:
        xs: arrays, (n,) each.
        y: (n,).
        num_draws: resamples.
        seed: fixes the resamples.

    Returns:
        (len(xs), num_draws) float64; NaN where an array came out constant in a draw.

    Raises:
        ValueError: as `spearman`.
    """
    for x in xs:
        spearman(x, y)
    y = np.asarray(y, dtype=np.float64)
    by_y = np.argsort(y, kind="stable")  # all arrays in this order: y's ranks then need no scattering
    ranked_y = _Ranking(y[by_y])
    ranked = [_Ranking(np.asarray(x, dtype=np.float64)[by_y]) for x in xs]
    random = np.random.default_rng(seed)
    num_pairs = len(y)
    middle = (num_pairs + 1) / 2  # the mean rank, whatever was drawn
    correlations = np.empty((len(xs), num_draws))
    at_a_time = max(1, _MOST_NUMBERS // num_pairs)
    for first in range(0, num_draws, at_a_time):
        block = slice(first, min(first + at_a_time, num_draws))
        counts = _draw_counts(random, block.stop - first, num_pairs)
        centred_y = ranked_y.ranks(counts) - middle
        weighted_y = counts * centred_y
        square_y = _row_products(weighted_y, centred_y)
        for row, ranking in zip(correlations, ranked, strict=True):
            centred_x = ranking.ranks(counts) - middle
            scale = square_y * _row_products(counts * centred_x, centred_x)
            products = _row_products(weighted_y, centred_x)
            row[block] = np.divide(products, np.sqrt(scale), out=np.full(len(scale), np.nan), where=scale > 0)
    return correlations


def _draw_counts(random: np.random.Generator, num_draws: int, num_pairs: int) -> np.ndarray:
    """How often each pair comes up in each draw, (num_draws, num_pairs)."""
    drawn = random.integers(num_pairs, size=(num_draws, num_pairs), dtype=np.int32)
    cells = drawn + num_pairs * np.arange(num_draws)[:, None]
    return np.bincount(cells.ravel(), minlength=cells.size).reshape(cells.shape)


def _row_products(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("bn,bn->b", a, b)


class _Ranking:
    """Mid-ranks of values (n,) in samples; sample b holds value i `counts[b, i]` times."""

    def __init__(self, values: np.ndarray) -> None:
        self._order = np.argsort(values, kind="stable")
        ordered = values[self._order]
        is_first = np.concatenate([[True], ordered[1:] != ordered[:-1]])
        self._place = np.empty(len(values), dtype=np.int64)
        self._place[self._order] = np.cumsum(is_first) - 1
        self._starts = None if is_first.all() else np.flatnonzero(is_first)

    def ranks(self, counts: np.ndarray) -> np.ndarray:
        """(b, n) float64; of values that were not drawn the rank they would have."""
        of_value = np.take(counts, self._order, axis=1)
        if self._starts is not None:
            of_value = np.add.reduceat(of_value, self._starts, axis=1)
        return np.take(np.cumsum(of_value, axis=1) - (of_value - 1) / 2, self._place, axis=1)


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x - x.mean(), y - y.mean()
    return float(x @ y / np.sqrt((x @ x) * (y @ y)))
