"""Plain records of what was found about a space, about a model's failures and about data; a report shows them.

Labels are the models' titles, in the order of the report.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import IntEnum, StrEnum
from typing import Any

import numpy as np

from embedsmith.results import Comparison, EvaluationResult

WATTS_A_THREAD = 10
"""Assumed: a busy core of a server or a laptop, with its share of memory and power supply."""
WATTS_A_GPU = 350
"""Assumed: about half of a data-centre GPU's limit; small batches rarely draw more."""


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


@dataclass(frozen=True)
class Distribution:
    """Some numbers, summed up.

    Attributes:
        mean: of them.
        quantiles: smallest, 5 %, median, 95 %, largest.
        edges: of the histogram's bins, one more than there are bins.
        counts: in each bin; a value on an edge belongs to the bin above, on the last edge to the last bin.
    """

    mean: float
    quantiles: tuple[float, ...]
    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class TextColumn:
    """A column of training texts: how many distinct ones, how long."""

    name: str
    num_distinct: int
    lengths: Distribution


@dataclass(frozen=True)
class DataFacts:
    """What to know of training data.

    Attributes:
        kind: triplets, pairs or scored pairs.
        num_rows: how many.
        num_repeated_rows: rows that stood there before, text by text.
        num_repeated_anchors: rows whose anchor stood there before; two of them must not meet in a batch.
        most_rows_of_an_anchor: of the one that stands there most often.
        num_rows_with_equal_texts: rows in which a text occurs twice.
        num_contradictions: (anchor, text) that are positive in one row and negative in another.
        num_closer_negatives: rows whose negative shares more words with the anchor than the positive does; None: no
            negatives.
        columns: of texts.
        overlaps: column -> share of words in common with the anchor (Jaccard).
        scores: of scored pairs.
        examples: some rows, drawn at random.
    """

    kind: str
    num_rows: int
    num_repeated_rows: int
    num_repeated_anchors: int
    most_rows_of_an_anchor: int
    num_rows_with_equal_texts: int
    num_contradictions: int
    num_closer_negatives: int | None
    columns: tuple[TextColumn, ...]
    overlaps: Mapping[str, Distribution]
    scores: Distribution | None
    examples: tuple[tuple[str, ...], ...]

    @property
    def counts(self) -> dict[str, str]:
        """The single numbers, for people to read."""
        share = 100 / self.num_rows
        lines = {
            "rows": f"{self.num_rows:,} {self.kind}",
            "repeated rows": f"{self.num_repeated_rows:,}",
            "repeated anchors": f"{self.num_repeated_anchors:,} ({share * self.num_repeated_anchors:.0f} %); "
            f"the most frequent one: {self.most_rows_of_an_anchor:,} x",
            "rows with a text twice": f"{self.num_rows_with_equal_texts:,}",
            "positive here, negative there": f"{self.num_contradictions:,}",
        }
        if self.num_closer_negatives is not None:
            lines["negative shares more words"] = f"{share * self.num_closer_negatives:.0f} % of rows"
        return lines

    def to_json(self) -> dict[str, Any]:
        """For files."""
        return asdict(self)


@dataclass(frozen=True)
class TextMap:
    """Some texts on a plane, under each model.

    Attributes:
        texts: that are shown.
        links: (text, text, whether people call the two alike), as positions in `texts`.
        positions: label -> a place for each text, in one scale for all models.
    """

    texts: tuple[str, ...]
    links: tuple[tuple[int, int, bool], ...]
    positions: Mapping[str, tuple[tuple[float, float], ...]]


@dataclass(frozen=True)
class Analysis:
    """Models on the same tasks; labels in the order given, the first one is what the others are compared with.

    Attributes:
        rows: (label, scores).
        comparisons: of each model but the first with the first.
        focus: the task that all below is about.
        pairs: (sentence1, sentence2, gold score) of it.
        cosines: label -> cosine of each of them.
        random_cosines: label -> cosines of random texts.
        alike_cosines: label -> cosines of the pairs that people call alike.
        geometry: label -> shape of the space.
        bands: label -> cosines by gold score.
        slices: pairs by kind, with the worst of the last model.
        map: some texts on a plane.
    """

    rows: list[tuple[str, EvaluationResult]]
    comparisons: list[Comparison]
    focus: str
    pairs: list[tuple[str, str, float]]
    cosines: Mapping[str, np.ndarray]
    random_cosines: Mapping[str, np.ndarray]
    alike_cosines: Mapping[str, np.ndarray]
    geometry: Mapping[str, Geometry]
    bands: Mapping[str, list[SimilarityBand]]
    slices: list[Slice]
    map: TextMap

    @property
    def gold(self) -> np.ndarray:
        """Gold scores of the pairs, (P,)."""
        return np.array([score for _, _, score in self.pairs])


@dataclass(frozen=True)
class Cost:
    """What a run took.

    Attributes:
        num_steps: optimizer steps.
        num_tokens: computed in training.
        elapsed_s: seconds, evaluations included.
        peak_bytes: most memory at one time: of the process on a CPU, of tensors on a GPU.
        num_threads: of the CPU.
        num_gpus: at work.
    """

    num_steps: int
    num_tokens: int
    elapsed_s: float
    peak_bytes: int
    num_threads: int
    num_gpus: int

    @property
    def energy_wh(self) -> float:
        """An estimate in watt-hours, from assumed watts alone."""
        return (WATTS_A_THREAD * self.num_threads + WATTS_A_GPU * self.num_gpus) * self.elapsed_s / 3600

    @property
    def lines(self) -> dict[str, str]:
        """For people to read."""
        gpus = f" and {WATTS_A_GPU} W for each of {self.num_gpus} GPUs" if self.num_gpus else ""
        return {
            "training time": f"{self.elapsed_s / 60:.1f} min, evaluations included",
            "steps": f"{self.num_steps:,}, {self.num_tokens:,} tokens",
            "peak memory": f"{self.peak_bytes / 1e9:.1f} GB {'of the GPU' if self.num_gpus else 'of the process'}",
            "energy": f"about {self.energy_wh:.1f} Wh, not measured: {WATTS_A_THREAD} W for each of "
            f"{self.num_threads} busy threads{gpus}",
        }


@dataclass(frozen=True)
class RunRecord:
    """A finished run, as its folder tells of it.

    Attributes:
        title: what it is called on the page.
        config_yaml: the resolved recipe.
        metrics: records of `metrics.jsonl`.
        facts: model, data, cost, environment: name -> value, for people to read.
    """

    title: str
    config_yaml: str
    metrics: tuple[Mapping[str, Any], ...]
    facts: Mapping[str, str]
