"""Is one model better than another? Paired bootstrap and permutation test on the same pairs or queries, over tasks
and seeds.

Two sources of chance are kept apart and added: which pairs or queries a task happens to hold (resampled), and which
seed a model happens to be trained with (from the seeds given, drawn towards a usual spread where they are few).
Cost: O(draws x pairs) for each model and seed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from embedsmith.evaluation.correlation import NUM_DRAWS, bootstrap_spearman, mid_ranks, percentile_interval, spearman
from embedsmith.records.results import SPEARMAN, Comparison, Difference

SEED_SPREAD = 0.005
"""Usual standard deviation of a score between seeds of one recipe: half a point of Spearman x 100 (docs/ablations.md).
"""
_SEED_SPREAD_WEIGHT = 8  # how many seeds the usual spread counts for beside those given
_CHUNK_DRAWS = 256


@dataclass(frozen=True)
class SeedScores:
    """One model on one task: similarities (K,) of each seed it was trained with, one or more."""

    similarities: Sequence[np.ndarray]


@dataclass(frozen=True)
class TaskScores:
    """The models of a comparison on one task.

    Attributes:
        gold: scores people gave, (K,).
        models: by label; the first one is what the others are compared with.
    """

    gold: np.ndarray
    models: Mapping[str, SeedScores]

    @property
    def size(self) -> int:
        """Number of pairs."""
        return len(self.gold)

    def scores(self, label: str) -> list[float]:
        """Of each seed: Spearman with the gold scores."""
        return [spearman(values, self.gold) for values in self.models[label].similarities]

    def bootstrap(self, label: str, *, num_draws: int, seed: int) -> np.ndarray:
        """The same over resampled pairs, (seeds, num_draws); equal pairs for every label."""
        return bootstrap_spearman(self.models[label].similarities, self.gold, num_draws=num_draws, seed=seed)

    def permutations(self, base: str, other: str, *, num_draws: int, seed: int) -> np.ndarray:
        """See `permutation_draws`."""
        of_base, of_other = self.models[base].similarities, self.models[other].similarities
        return permutation_draws(of_base, of_other, self.gold, num_draws=num_draws, seed=seed)


class Task(Protocol):
    """What a comparison asks of a task; `TaskScores` of scored pairs, `per_query.QueryTask` of a retrieval set,
    `duplicates.DuplicateTask` of a duplicate set."""

    @property
    def models(self) -> Mapping[str, object]:
        """By label; the first one is what the others are compared with."""

    @property
    def size(self) -> int:
        """Number of pairs or queries."""

    def scores(self, label: str) -> list[float]:
        """Of each seed."""

    def bootstrap(self, label: str, *, num_draws: int, seed: int) -> np.ndarray:
        """Scores over resamples, (seeds, num_draws), the same resamples for every label."""

    def permutations(self, base: str, other: str, *, num_draws: int, seed: int) -> np.ndarray:
        """Differences `other - base` that chance makes, (num_draws,)."""


def compare(
    tasks: Mapping[str, Task],
    *,
    num_draws: int = NUM_DRAWS,
    seed_spread: float = SEED_SPREAD,
    metric: str = SPEARMAN,
    seed: int = 0,
) -> list[Comparison]:
    """Compare every model with the first one, task by task and on average.

    A difference's interval is the paired bootstrap's: every draw resamples the pairs of each task, the same for all
    models, and adds what other seeds would change. Its p-value is a permutation test's: under the null the two models'
    ranks of a pair may be swapped. P-values are corrected over all tasks and models (Holm 1979); those of the averages
    over models alone.

    Args:
        tasks: by name; all with the same models.
        num_draws: of either kind.
        seed_spread: standard deviation between seeds that counts where few were given; 0: these very models are meant,
            not their recipes, and with one seed each only the pairs are chance.
        metric: what the tasks' scores are, for the comparison to say.
        seed: fixes the draws.

    Returns:
        One comparison for each model but the first.

    Raises:
        ValueError: as `spearman`.

    Reference: Efron and Tibshirani 1993, chapters 13 and 15; Smyth 2004 (section 3) for the spread of few seeds.
    """
    labels = list(next(iter(tasks.values())).models)
    base, *others = labels
    bootstraps = {
        name: {label: task.bootstrap(label, num_draws=num_draws, seed=seed) for label in task.models}
        for name, task in tasks.items()
    }
    found = [
        _compare_two(tasks, bootstraps, base, other, num_draws=num_draws, seed_spread=seed_spread, seed=seed)
        for other in others
    ]
    return [replace(one, metric=metric) for one in _corrected(found)]


def permutation_draws(
    base: Sequence[np.ndarray], other: Sequence[np.ndarray], gold: np.ndarray, *, num_draws: int, seed: int
) -> np.ndarray:
    """Differences in Spearman that chance makes, (num_draws,): each pair's ranks are swapped between models, or not.

    The ranks, not the cosines, as two models' cosines are of different scales; they are not ranked anew, so a draw is a
    difference of Pearson correlations of ranks and the one without any swap is the observed difference.

    Args:
        base: similarities (K,) of each seed.
        other: the same of the other model; every seed of the one is compared with every seed of the other.
        gold: (K,).
        num_draws: permutations.
        seed: fixes them.
    """
    gold_ranks = _centred(mid_ranks(gold))
    of_base, of_other = ([_centred(mid_ranks(values)) for values in values_of] for values_of in (base, other))
    random = np.random.default_rng(seed)
    draws = np.empty(num_draws)
    for start in range(0, num_draws, _CHUNK_DRAWS):
        num_rows = min(_CHUNK_DRAWS, num_draws - start)
        bits = np.frombuffer(random.bytes(num_rows * -(-len(gold) // 8)), dtype=np.uint8).reshape(num_rows, -1)
        signs = np.unpackbits(bits, axis=1, count=len(gold)).astype(np.float64) * 2 - 1
        chunk = [_swapped_difference(signs, x, y, gold_ranks) for x in of_base for y in of_other]
        draws[start : start + num_rows] = np.mean(chunk, axis=0)
    return draws


def seed_noise(num_seeds: tuple[int, int], spread: float, degrees: int, *, num_draws: int, seed: int) -> np.ndarray:
    """What other seeds would add to a difference of two means over `num_seeds`, (num_draws,); Student's t."""
    scale = spread * np.sqrt(1 / num_seeds[0] + 1 / num_seeds[1])
    return scale * np.random.default_rng([seed, 1]).standard_t(degrees, size=num_draws)


def spread_between_seeds(scores: Sequence[Sequence[float]], *, usual: float) -> tuple[float, int]:
    """Standard deviation between seeds, of models that are taken to share one, and its degrees of freedom.

    Few seeds say little of it, so the usual spread counts as `_SEED_SPREAD_WEIGHT` more of them; with `usual` 0 those
    given count alone.
    """
    squares = sum(float(np.var(of_model)) * len(of_model) for of_model in scores)
    degrees = sum(len(of_model) - 1 for of_model in scores)
    weight = _SEED_SPREAD_WEIGHT if usual > 0 else 0
    total = degrees + weight
    return (float(np.sqrt((squares + weight * usual**2) / total)) if total else 0.0), max(total, 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number: the chance that any of the smaller ones is by luck (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    steps = np.asarray(p_values, dtype=np.float64)[order] * np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return corrected.tolist()


def _compare_two(
    tasks: Mapping[str, Task],
    bootstraps: Mapping[str, Mapping[str, np.ndarray]],
    base: str,
    other: str,
    *,
    num_draws: int,
    seed_spread: float,
    seed: int,
) -> Comparison:
    differences = {}
    all_scores: list[tuple[list[float], list[float]]] = []
    all_boots, all_nulls = [], []
    for index, (name, task) in enumerate(tasks.items()):
        scores = (task.scores(base), task.scores(other))
        boots = bootstraps[name][other].mean(axis=0) - bootstraps[name][base].mean(axis=0)
        nulls = task.permutations(base, other, num_draws=num_draws, seed=seed + index)
        differences[name] = _difference(scores, boots, nulls, seed_spread=seed_spread, seed=seed, num_pairs=task.size)
        all_scores.append(scores)
        all_boots.append(boots)
        all_nulls.append(nulls)
    averages = tuple(np.mean([scores[side] for scores in all_scores], axis=0).tolist() for side in (0, 1))
    average = _difference(
        (averages[0], averages[1]),
        np.mean(all_boots, axis=0),
        np.mean(all_nulls, axis=0),
        seed_spread=seed_spread,
        seed=seed,
        num_pairs=sum(task.size for task in tasks.values()),
    )
    return Comparison(base=base, model=other, tasks=differences, average=average)


def _difference(
    scores: tuple[Sequence[float], Sequence[float]],
    boots: np.ndarray,
    nulls: np.ndarray,
    *,
    seed_spread: float,
    seed: int,
    num_pairs: int,
) -> Difference:
    base, other = (float(np.mean(of_seeds)) for of_seeds in scores)
    spread, degrees = spread_between_seeds(scores, usual=seed_spread)
    num_seeds = (len(scores[0]), len(scores[1]))
    noise = seed_noise(num_seeds, spread, degrees, num_draws=len(boots), seed=seed)
    difference = other - base
    num_as_large = int(np.sum(np.abs(nulls + noise) >= abs(difference) - 1e-12))
    return Difference(
        base=base,
        model=other,
        ci95=percentile_interval(boots + noise),
        p_value=(1 + num_as_large) / (1 + len(nulls)),
        num_pairs=num_pairs,
        num_seeds=num_seeds,
    )


def _corrected(found: Sequence[Comparison]) -> list[Comparison]:
    """The same with p-values corrected: over tasks and models, and the averages' over models."""
    of_tasks = iter(holm([difference.p_value for one in found for difference in one.tasks.values()]))
    of_averages = iter(holm([one.average.p_value for one in found]))
    return [
        Comparison(
            base=one.base,
            model=one.model,
            tasks={name: difference.with_p_value(next(of_tasks)) for name, difference in one.tasks.items()},
            average=one.average.with_p_value(next(of_averages)),
        )
        for one in found
    ]


def _swapped_difference(signs: np.ndarray, x: np.ndarray, y: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """Pearson with gold of y minus that of x, after swaps; x, y and gold (K,) centred, signs (rows, K); (rows,).

    With m the mean and d the half difference of x and y, the swapped values are m + s d and m - s d: all sums over
    pairs that depend on the signs s are products of them with three columns.
    """
    middle, half = (x + y) / 2, (x - y) / 2
    with_gold, shift, cross = (signs @ np.stack([half * gold, half, 2 * middle * half], axis=1)).T
    square = middle @ middle + half @ half - shift**2 / len(gold)
    scale = np.sqrt(gold @ gold)
    of_x = (middle @ gold + with_gold) / (scale * np.sqrt(square + cross))
    of_y = (middle @ gold - with_gold) / (scale * np.sqrt(square - cross))
    return np.asarray(of_y - of_x)


def _centred(values: np.ndarray) -> np.ndarray:
    return values - values.mean()
