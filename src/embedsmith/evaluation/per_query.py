"""A score for every query -> its mean's interval, and what a comparison of two models on the same queries needs.

Cost: O(draws x queries) for each model and seed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from embedsmith.evaluation.correlation import NUM_DRAWS, percentile_interval

_CHUNK_DRAWS = 256


@dataclass(frozen=True)
class QueryTask:
    """The models of a comparison on one retrieval set.

    Attributes:
        models: label -> scores (Q,) of each seed, of the same queries in the same order.
    """

    models: Mapping[str, Sequence[np.ndarray]]

    @property
    def size(self) -> int:
        """Number of queries."""
        return len(next(iter(self.models.values()))[0])

    def scores(self, label: str) -> list[float]:
        """Of each seed: the mean over queries."""
        return [float(np.mean(of_seed)) for of_seed in self.models[label]]

    def bootstrap(self, label: str, *, num_draws: int, seed: int) -> np.ndarray:
        """Means over resampled queries, (seeds, num_draws); equal queries for every label."""
        return bootstrap_means(self.models[label], num_draws=num_draws, seed=seed)

    def permutations(self, base: str, other: str, *, num_draws: int, seed: int) -> np.ndarray:
        """Differences of means that chance makes, (num_draws,): each query's scores are swapped between models, or not.

        Reference: the randomization test of Smucker, Allan and Carterette 2007, section 3.1.
        """
        difference = np.mean(self.models[other], axis=0) - np.mean(self.models[base], axis=0)
        random = np.random.default_rng(seed)
        chunks = [
            (random.integers(2, size=(min(_CHUNK_DRAWS, num_draws - start), len(difference)), dtype=np.int8) * 2.0 - 1)
            @ difference
            for start in range(0, num_draws, _CHUNK_DRAWS)
        ]
        return np.concatenate(chunks) / len(difference)


def bootstrap_means(scores: Sequence[np.ndarray], *, num_draws: int, seed: int) -> np.ndarray:
    """Means of each of some arrays (Q,) over the same resamples of its values, (len(scores), num_draws)."""
    values = np.stack(scores)
    random = np.random.default_rng(seed)
    draws = np.empty((len(values), num_draws))
    for draw in range(num_draws):
        draws[:, draw] = values[:, random.integers(values.shape[1], size=values.shape[1])].mean(axis=1)
    return draws


def mean_interval(scores: np.ndarray, *, num_draws: int = NUM_DRAWS, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap 95 % interval of the mean of scores (Q,) over queries.

    Reference: Efron and Tibshirani 1993, chapter 13.
    """
    return percentile_interval(bootstrap_means([scores], num_draws=num_draws, seed=seed)[0])
