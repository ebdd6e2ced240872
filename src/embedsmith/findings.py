"""Plain records of what was found about a space, about a model's failures and about data; a report shows them.

Labels are the models' titles, in the order of the report.
"""

from collections.abc import Mapping
from dataclasses import dataclass


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
