"""Pairs that mean the same or not -> average precision of their order by cosine, its interval, and what a comparison of
two models on the same pairs needs.

Ranks are mid-ranks (`correlation.mid_ranks`), from 1, the nearest pair the highest; equal cosines share one. Cost:
O(draws x pairs) for each model and seed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from embedsmith.evaluation.correlation import NUM_DRAWS, percentile_interval


@dataclass(frozen=True)
class DuplicateTask:
    """The models of a comparison on one duplicate set.

    Attributes:
        is_duplicate: whether a pair means the same, (K,) bool.
        models: label -> mid-ranks (K,) of each seed.
    """

    is_duplicate: np.ndarray
    models: Mapping[str, Sequence[np.ndarray]]

    @property
    def size(self) -> int:
        """Number of pairs."""
        return len(self.is_duplicate)

    def scores(self, label: str) -> list[float]:
        """Of each seed: average precision."""
        return [average_precision(ranks, self.is_duplicate) for ranks in self.models[label]]

    def bootstrap(self, label: str, *, num_draws: int, seed: int) -> np.ndarray:
        """Average precision over resampled pairs, (seeds, num_draws); equal pairs for every label."""
        return bootstrap_average_precision(self.models[label], self.is_duplicate, num_draws=num_draws, seed=seed)

    def permutations(self, base: str, other: str, *, num_draws: int, seed: int) -> np.ndarray:
        """Differences that chance makes, (num_draws,): the two models' ranks of each pair are swapped, or not; every
        seed of the one is compared with every seed of the other."""
        random = np.random.default_rng(seed)
        draws = np.empty(num_draws)
        for draw in range(num_draws):
            is_swapped = random.integers(2, size=self.size, dtype=np.int8).astype(bool)
            draws[draw] = np.mean(
                [
                    average_precision(np.where(is_swapped, x, y), self.is_duplicate)
                    - average_precision(np.where(is_swapped, y, x), self.is_duplicate)
                    for x in self.models[base]
                    for y in self.models[other]
                ]
            )
        return draws


def average_precision(ranks: np.ndarray, is_duplicate: np.ndarray) -> float:
    """Mean over the duplicates of the precision among all pairs that are as near or nearer; NaN without a duplicate.

    Args:
        ranks: (K,), whole or half numbers of 0 or more, as mid-ranks are; the nearest pair has the highest.
        is_duplicate: (K,) bool.

    Reference: scikit-learn's `average_precision_score`, which mteb uses; held equal by a test.
    """
    places = (2 * ranks).astype(np.int64)  # mid-ranks are halves, so counting needs no sorting
    found = np.bincount(places[is_duplicate], minlength=places.max() + 1)[::-1]
    among = np.cumsum(np.bincount(places)[::-1])
    so_far = np.cumsum(found)
    if so_far[-1] == 0:
        return float("nan")
    return float(found @ (so_far / np.maximum(among, 1)) / so_far[-1])


def bootstrap_average_precision(
    ranks: Sequence[np.ndarray], is_duplicate: np.ndarray, *, num_draws: int, seed: int
) -> np.ndarray:
    """`average_precision` of each of some ranks (K,) over the same resamples of the pairs, (len(ranks), num_draws)."""
    random = np.random.default_rng(seed)
    draws = np.empty((len(ranks), num_draws))
    for draw in range(num_draws):
        rows = random.integers(len(is_duplicate), size=len(is_duplicate))
        draws[:, draw] = [average_precision(of_seed[rows], is_duplicate[rows]) for of_seed in ranks]
    return draws


def average_precision_interval(
    ranks: np.ndarray, is_duplicate: np.ndarray, *, num_draws: int = NUM_DRAWS, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap 95 % interval of `average_precision` over pairs.

    Reference: Efron and Tibshirani 1993, chapter 13.
    """
    return percentile_interval(bootstrap_average_precision([ranks], is_duplicate, num_draws=num_draws, seed=seed)[0])
