"""Plain records of what was found about a space, about a model's failures and about data; a report shows them.

Labels are the models' titles, in the order of the report.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import IntEnum, StrEnum
from typing import Any


@dataclass(frozen=True)
class Geometry:
    """The shape of an embedding space.

    Attributes:
        anisotropy: mean cosine of two random texts; near 0 for directions spread evenly, near 1 for a narrow cone.
        uniformity: log of the mean Gaussian potential of random pairs; lower is more even.
        effective_rank: how many directions are in use, in [1, width]: exp of the entropy of the singular values.
        top_share: the strongest direction's share of the squared lengths; near 1 when all texts point one way.
        width: of an embedding.
        num_texts: that it was measured on.
        alignment: mean squared distance of positives; lower is closer. None where there were no positives.
    """

    anisotropy: float
    uniformity: float
    effective_rank: float
    top_share: float
    width: int
    num_texts: int
    alignment: float | None


@dataclass(frozen=True)
class SimilarityBand:
    """Cosines of the pairs whose gold score lies between two edges.

    Attributes:
        edges: of the gold score.
        num_pairs: in the band.
        quantiles: of their cosines: 5, 25, 50, 75 and 95 %.
    """

    edges: tuple[float, float]
    num_pairs: int
    quantiles: tuple[float, ...]


@dataclass(frozen=True)
class WrongPair:
    """A pair and where it stands among all pairs.

    Attributes:
        sentence1, sentence2: the pair.
        gold: its score.
        gold_rank: by gold, as a share of all pairs: 1 is the most similar.
        ranks: label -> rank by cosine, as a share.
        cosines: label -> cosine.
        kinds: the slices it is in.
    """

    sentence1: str
    sentence2: str
    gold: float
    gold_rank: float
    ranks: Mapping[str, float]
    cosines: Mapping[str, float]
    kinds: tuple[str, ...]


@dataclass(frozen=True)
class Slice:
    """Pairs of one kind.

    Attributes:
        name: of the kind.
        meaning: which pairs are in it.
        num_pairs: how many.
        scores: label -> Spearman within the slice; None where there are too few pairs, or only one score.
        errors: label -> mean distance of a pair's rank by cosine from its rank by gold, among all pairs, as a share.
        biases: label -> the same with its sign: above 0, the model takes such pairs for more similar than people do.
        worst: the pairs that the last model gets most wrong, the worst first.
    """

    name: str
    meaning: str
    num_pairs: int
    scores: Mapping[str, float | None]
    errors: Mapping[str, float]
    biases: Mapping[str, float]
    worst: tuple[WrongPair, ...]


class Match(IntEnum):
    """How alike a training text and an evaluation text are; a larger one is nearer."""

    NEAR = 1
    """Most of their character n-grams are common."""
    NORMALISED = 2
    """The same letters and digits in the same order, whatever the case, spaces and punctuation."""
    EXACT = 3
    """The same characters."""

    @property
    def word(self) -> str:
        """For people to read."""
        return self.name.lower()


class Leakage(StrEnum):
    """What training and evaluation data have in common."""

    NONE = "clean"
    TEXTS = "texts overlap"
    PAIRS = "pairs overlap"


@dataclass(frozen=True)
class SharedText:
    """An evaluation text, a training text like it, and how alike they are."""

    evaluated: str
    trained: str
    match: Match


@dataclass(frozen=True)
class Overlap:
    """What one evaluation set has in common with the training data.

    Attributes:
        name: of the set.
        num_texts: its distinct texts.
        num_pairs: its distinct pairs: the same two texts in either order, case and punctuation aside, are one.
        texts: kind of match -> how many of its texts; each counts once, under its nearest match.
        pairs: the same for pairs of which both texts stand in one training row.
        examples: some of the texts, those of shared pairs first.
    """

    name: str
    num_texts: int
    num_pairs: int
    texts: Mapping[Match, int]
    pairs: Mapping[Match, int]
    examples: tuple[SharedText, ...]


@dataclass(frozen=True)
class LeakageReport:
    """What evaluation sets have in common with training data.

    Attributes:
        num_rows: of training data.
        num_shared_rows: rows of which some text matches an evaluation text.
        threshold: Jaccard similarity from which texts count as near; None: near ones were not looked for.
        overlaps: one for each evaluation set.
    """

    num_rows: int
    num_shared_rows: int
    threshold: float | None
    overlaps: tuple[Overlap, ...]

    @property
    def verdict(self) -> Leakage:
        """The worst that was found."""
        if any(sum(overlap.pairs.values()) for overlap in self.overlaps):
            return Leakage.PAIRS
        return Leakage.TEXTS if any(sum(overlap.texts.values()) for overlap in self.overlaps) else Leakage.NONE

    def to_json(self) -> dict[str, Any]:
        """For files."""
        overlaps = [
            asdict(overlap)
            | {"texts": {kind.word: number for kind, number in overlap.texts.items()}}
            | {"pairs": {kind.word: number for kind, number in overlap.pairs.items()}}
            | {"examples": [{**asdict(example), "match": example.match.word} for example in overlap.examples]}
            for overlap in self.overlaps
        ]
        return {**asdict(self), "verdict": str(self.verdict), "overlaps": overlaps}
