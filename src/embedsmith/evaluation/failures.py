"""Scored pairs + similarities of some models -> what they get wrong, by kind of pair.

A pair is wrong by as much as its rank by cosine, among all pairs, is away from its rank by gold: ranks, as Spearman
takes them, so that no scale of cosines matters. The kinds are told by the words alone, without a model, in English.
"""

import re
from collections.abc import Callable, Mapping

import numpy as np

from embedsmith.data.pairs import ScoredPairs
from embedsmith.data.statistics import jaccard
from embedsmith.evaluation.correlation import mid_ranks, spearman
from embedsmith.evaluation.geometry import shares_of_scale
from embedsmith.records.findings import Slice, WrongPair

MIN_PAIRS_TO_SCORE = 20
"""In fewer pairs a correlation says nothing."""
_ALL = "all pairs"
_NEGATION = re.compile(
    "no|not|never|nobody|nothing|none|nor|neither|nowhere|without|cannot|hardly|n't"
    "|(do|does|did|is|are|was|were|ca|wo)nt"
)
_NUMBER = re.compile(r"\d+|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|hundred|thousand")
_WORD = re.compile(r"n't|\w+(?=n't)|\w+")
_NAME = re.compile(r"(?<=[\w,;:'\"] )[A-Z][\w-]+")
"""A capital inside a sentence; lower-cased texts have none."""


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower().replace("’", "'"))


def _details(text: str, words: list[str]) -> set[str]:
    numbers = {word for word in words if _NUMBER.fullmatch(word)}
    return numbers | {name.lower() for name in _NAME.findall(text)}


def _is_negated(words: list[str]) -> bool:
    return any(_NEGATION.fullmatch(word) for word in words)


def _kinds_of(first: str, second: str, share: float) -> list[str]:
    """Names in `_MEANINGS` of the kinds that a pair with this share of the gold scale belongs to."""
    one, two = _words(first), _words(second)
    overlap = jaccard(set(one), set(two))
    longer, shorter = max(len(one), len(two)), min(len(one), len(two))
    holds = {
        "negation": _is_negated(one) != _is_negated(two),
        "numbers and names": _details(first, one) != _details(second, two),
        "word order": overlap >= 0.9 and one != two,
        "length difference": longer >= 2 * shorter and longer - shorter >= 5,
        "low-overlap paraphrases": share >= 0.8 and overlap <= 0.3,
        "high-overlap, not alike": share <= 0.4 and overlap >= 0.6,
    }
    return [name for name, is_so in holds.items() if is_so]


_MEANINGS = {
    _ALL: "every pair",
    "negation": "one sentence has a negation, the other none",
    "numbers and names": "their numbers or capitalised names differ",
    "word order": "the same words (at least nine in ten) in another order, or nearly",
    "length difference": "one is at least twice as long as the other, and by five words or more",
    "low-overlap paraphrases": "people call them alike (gold in the upper fifth), and at most 3 words in 10 are shared",
    "high-overlap, not alike": "people call them unlike (gold in the lower two fifths), and 6 words in 10 are shared",
}


def analyse_failures(pairs: ScoredPairs, similarities: Mapping[str, np.ndarray], *, num_worst: int = 12) -> list[Slice]:
    """All pairs, then each kind that occurs, with scores, mean rank errors and the worst pairs.

    Args:
        pairs: P scored pairs.
        similarities: label -> cosine of each pair, (P,); the last one's worst pairs are listed.
        num_worst: pairs listed of each kind.

    Raises:
        ValueError: similarities that are not finite.
    """
    shares = shares_of_scale(pairs.scores)
    kinds = [
        _kinds_of(first, second, share)
        for first, second, share in zip(pairs.sentence1, pairs.sentence2, shares.tolist(), strict=True)
    ]
    gold_ranks = mid_ranks(pairs.scores) / len(pairs)
    ranks = {label: mid_ranks(values) / len(pairs) for label, values in similarities.items()}
    last = list(similarities)[-1]

    def wrong_pair(row: int) -> WrongPair:
        return WrongPair(
            sentence1=pairs.sentence1[row],
            sentence2=pairs.sentence2[row],
            gold=float(pairs.scores[row]),
            gold_rank=float(gold_ranks[row]),
            ranks={label: float(values[row]) for label, values in ranks.items()},
            cosines={label: float(values[row]) for label, values in similarities.items()},
            kinds=tuple(kinds[row]),
        )

    def make_slice(name: str, rows: np.ndarray) -> Slice:
        wrong_by = np.abs(ranks[last][rows] - gold_ranks[rows])
        worst = rows[np.argsort(-wrong_by, kind="stable")[:num_worst]]
        return Slice(
            name=name,
            meaning=_MEANINGS[name],
            num_pairs=len(rows),
            scores={label: _score(values[rows], pairs.scores[rows]) for label, values in similarities.items()},
            errors=_means(ranks, lambda values: np.abs(values[rows] - gold_ranks[rows])),
            biases=_means(ranks, lambda values: values[rows] - gold_ranks[rows]),
            worst=tuple(wrong_pair(int(row)) for row in worst),
        )

    slices = []
    for name in _MEANINGS:
        rows = np.flatnonzero([name == _ALL or name in of_pair for of_pair in kinds])
        if len(rows):
            slices.append(make_slice(name, rows))
    return slices


def _score(similarities: np.ndarray, gold: np.ndarray) -> float | None:
    if len(gold) < MIN_PAIRS_TO_SCORE or np.ptp(gold) == 0 or np.ptp(similarities) == 0:
        return None
    return spearman(similarities, gold)


def _means(ranks: Mapping[str, np.ndarray], distance: Callable[[np.ndarray], np.ndarray]) -> dict[str, float]:
    return {label: float(distance(values).mean()) for label, values in ranks.items()}
