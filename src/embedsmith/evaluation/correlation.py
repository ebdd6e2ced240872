"""Spearman correlation and its bootstrap interval: maths on two arrays.

Cost: O(n log n) once, then O(n) per bootstrap draw (values are coded by rank once; a draw only counts codes).
"""

import numpy as np


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman correlation of two arrays (n,), ties at their average rank.

    Raises:
        ValueError: fewer than two values, values that are not finite, or a constant array (no ranking to compare).
    """
    codes_x, codes_y = _codes(x), _codes(y)
    if len(x) != len(y):
        raise ValueError(f"arrays differ in length: {len(x)} and {len(y)}")
    if codes_x.max() == 0 or codes_y.max() == 0:
        raise ValueError("an array is constant, so its correlation is not defined")
    return _correlation(_mid_ranks(codes_x), _mid_ranks(codes_y))


def bootstrap_interval(
    x: np.ndarray, y: np.ndarray, *, num_draws: int = 1000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of `spearman(x, y)`: pairs are resampled and ranked anew in every draw.

    Draws in which an array comes out constant have no correlation and are left out.

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
    spearman(x, y)
    codes_x, codes_y = _codes(x), _codes(y)
    random = np.random.default_rng(seed)
    draws = []
    for _ in range(num_draws):
        rows = random.integers(len(codes_x), size=len(codes_x))
        drawn_x, drawn_y = codes_x[rows], codes_y[rows]
        if drawn_x.min() < drawn_x.max() and drawn_y.min() < drawn_y.max():
            draws.append(_correlation(_mid_ranks(drawn_x), _mid_ranks(drawn_y)))
    lower, upper = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(lower), float(upper)


def _codes(values: np.ndarray) -> np.ndarray:
    """Each value's place among the distinct values, from 0."""
    values = np.asarray(values, dtype=np.float64)
    if len(values) < 2 or not np.isfinite(values).all():
        raise ValueError("at least two finite values are needed")
    return np.unique(values, return_inverse=True)[1]


def _mid_ranks(codes: np.ndarray) -> np.ndarray:
    counts = np.bincount(codes)
    ranks = np.cumsum(counts) - (counts - 1) / 2  # of each code: the mean of the ranks its values take up
    return ranks[codes]


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x - x.mean(), y - y.mean()
    return float(x @ y / np.sqrt((x @ x) * (y @ y)))
