"""Near texts of an anchor and their similarities -> its hard negatives, by rules. Numbers alone: no model, no text.

    the nearest candidates, best first -> without known ones -> the first `last_rank` of them -> without what is too
    near to be a negative or too far to be a hard one -> from `first_rank` on -> the top or a random choice

Reference: NV-Retriever (de Souza P. Moreira et al. 2024, arXiv 2407.15831), section 3.2: `relative_margin` 0.05 is its
TopK-PercPos of 95 %, `absolute_margin` its TopK-MarginPos, `max_score` its TopK-Abs, `first_rank` its Top-k shifted by
N. Relations: picks what `sentence_transformers.util.mine_hard_negatives` picks (first_rank = range_min + 1, last_rank =
range_max), as long as `last_rank` leaves enough.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embedsmith.data.text_ids import TextIds
from embedsmith.records.mined import Dropped
from embedsmith.settings.choices import NegativeChoice
from embedsmith.support.errors import ConfigError

NOTHING = -1
"""In the place of a candidate's number: there is none."""
_WIDEST = 2.0
"""Between two similarities."""
_LEAST_LAST_RANK = 100


@dataclass(frozen=True)
class MiningRules:
    """What may be taken as a hard negative, and how much of it. Similarities are cosines.

    Attributes:
        num_negatives: of a row, at most.
        first_rank: 1 is the nearest of the texts that the other rules leave.
        last_rank: so many of the nearest are looked at, known ones aside; None: 100, or ten times the negatives if
            that is more, behind `first_rank`.
        relative_margin: of the positive's similarity p, what is nearer than p - margin * |p| is taken for a false
            negative; None: no such rule. Of several positives of an anchor, the farthest one counts.
        absolute_margin: the same for p - margin.
        max_score: no nearer ones.
        min_score: no farther ones.
        choice: the nearest ones, or a random choice.
        seed: of the random choice.
    """

    num_negatives: int = 3
    first_rank: int = 1
    last_rank: int | None = None
    relative_margin: float | None = 0.05
    absolute_margin: float | None = None
    max_score: float | None = None
    min_score: float | None = None
    choice: NegativeChoice = NegativeChoice.TOP
    seed: int = 7

    def __post_init__(self) -> None:
        if self.num_negatives < 1 or self.first_rank < 1:
            raise ConfigError(
                f"--num-negatives is {self.num_negatives} and --first-rank is {self.first_rank}; each is 1 or more."
            )
        if self.num_ranks < self.first_rank - 1 + self.num_negatives:
            raise ConfigError(
                f"--last-rank is {self.num_ranks}, but {self.num_negatives} negatives from rank {self.first_rank} on "
                f"need {self.first_rank - 1 + self.num_negatives}.\nRaise it, or leave it away."
            )
        values = {
            "relative-margin": self.relative_margin,
            "absolute-margin": self.absolute_margin,
            "max-score": self.max_score,
            "min-score": self.min_score,
        }
        for name, value in values.items():
            if value is not None and not math.isfinite(value):
                raise ConfigError(f"--{name} is {value}; it must be a number.")
            if value is not None and abs(value) > _WIDEST:
                raise ConfigError(f"--{name} is {value}; similarities lie within 1, so give one from -2 to 2.")
        if self.max_score is not None and self.min_score is not None and self.max_score <= self.min_score:
            raise ConfigError(
                f"--max-score is {self.max_score} and --min-score is {self.min_score}, so nothing lies between them."
            )

    @property
    def num_ranks(self) -> int:
        """How many of the nearest are looked at, known ones aside."""
        return self.last_rank or self.first_rank - 1 + max(_LEAST_LAST_RANK, 10 * self.num_negatives)


@dataclass(frozen=True)
class Chosen:
    """Hard negatives of some anchors.

    Attributes:
        numbers: (K, num_negatives) of the candidates, nearest first; `NOTHING` where there are fewer.
        scores: (K, num_negatives) their similarities.
        num_looked_at: how many near texts the rules were asked about.
        dropped: rule -> how many of them it left out.
    """

    numbers: np.ndarray
    scores: np.ndarray
    num_looked_at: int
    dropped: Counter[Dropped]


def choose_negatives(
    numbers: np.ndarray,
    scores: np.ndarray,
    *,
    known: Sequence[np.ndarray],
    positive_scores: np.ndarray,
    rules: MiningRules,
    anchors: Sequence[int] | np.ndarray,
) -> Chosen:
    """Hard negatives of K anchors.

    Args:
        numbers: (K, n) of the candidates nearest to each anchor, the nearest first; `NOTHING` where there are fewer.
            For `rules.num_ranks` of them to count, n must be larger by the most known ones of an anchor.
        scores: (K, n) their similarities.
        known: for each anchor, numbers of the candidates that it must not get whatever their similarity.
        positive_scores: (K,) similarity of each anchor's farthest positive.
        rules: see there.
        anchors: (K,) their numbers, so that the random choice does not depend on how they are grouped.
    """
    is_known = np.stack([np.isin(row, own) for row, own in zip(numbers, known, strict=True)])
    is_open = (numbers != NOTHING) & ~is_known
    is_open &= np.cumsum(is_open, axis=1) <= rules.num_ranks
    dropped = Counter({Dropped.KNOWN: int((is_known & (numbers != NOTHING)).sum())})
    num_looked_at = int(is_open.sum()) + dropped[Dropped.KNOWN]
    for rule, is_against in _verdicts(scores, positive_scores[:, None], rules=rules):
        dropped[rule] = int((is_open & is_against).sum())
        is_open &= ~is_against
    is_early = is_open & (np.cumsum(is_open, axis=1) < rules.first_rank)
    dropped[Dropped.FIRST_RANK] = int(is_early.sum())
    is_open &= ~is_early
    found = np.full((len(numbers), rules.num_negatives), NOTHING)
    found_scores = np.full(found.shape, np.nan, dtype=np.float32)
    for row, is_left in enumerate(is_open):
        places = _pick(np.flatnonzero(is_left), rules=rules, anchor=int(anchors[row]))
        found[row, : len(places)] = numbers[row, places]
        found_scores[row, : len(places)] = scores[row, places]
    return Chosen(found, found_scores, num_looked_at, dropped)


def count_disjoint(text_ids: TextIds) -> int:
    """How many rows without a common text are found, row by row: about the largest batch that data can fill."""
    seen: set[int] = set()
    num_rows = 0
    for row in range(len(text_ids)):
        ids = text_ids[row].tolist()
        if seen.isdisjoint(ids):
            seen.update(ids)
            num_rows += 1
    return num_rows


def _verdicts(scores: np.ndarray, positive: np.ndarray, *, rules: MiningRules) -> list[tuple[Dropped, np.ndarray]]:
    """Of each rule that is asked for, in order: whether it is against a text, (K, n)."""
    found = []
    if rules.absolute_margin is not None:
        found.append((Dropped.ABSOLUTE_MARGIN, scores + np.float32(rules.absolute_margin) > positive))
    if rules.relative_margin is not None:  # of |p|: else a negative p would be raised
        limit = positive - np.abs(positive) * np.float32(rules.relative_margin)
        found.append((Dropped.RELATIVE_MARGIN, scores > limit))
    if rules.max_score is not None:
        found.append((Dropped.MAX_SCORE, scores > rules.max_score))
    if rules.min_score is not None:
        found.append((Dropped.MIN_SCORE, scores < rules.min_score))
    return found


def _pick(places: np.ndarray, *, rules: MiningRules, anchor: int) -> np.ndarray:
    if rules.choice is NegativeChoice.TOP or len(places) <= rules.num_negatives:
        return places[: rules.num_negatives]
    stream = np.random.default_rng([rules.seed, anchor])
    return np.sort(stream.choice(places, size=rules.num_negatives, replace=False))
