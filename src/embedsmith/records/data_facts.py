"""Plain records of what was found about data: what training and evaluation share, and what training data is like."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import IntEnum, StrEnum
from typing import Any


class Match(IntEnum):
    """How alike a training text and an evaluation text are; a larger one is nearer."""

    NEAR = 1
    """Most of their character n-grams are common."""
    NORMALISED = 2
    """The same letters, marks, digits and symbols, whatever the case, Unicode form, spaces and punctuation."""
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
        kind: triplets, pairs, scored pairs or texts.
        num_rows: how many.
        negatives_per_row: the smallest and the largest number of a row's hard negatives.
        num_repeated_rows: rows that stood there before, text by text.
        num_repeated_anchors: rows whose anchor stood there before; two of them must not meet in a batch.
        most_rows_of_an_anchor: of the one that stands there most often.
        num_rows_with_equal_texts: rows in which a text occurs twice.
        num_contradictions: (anchor, text) that are positive in one row and negative in another.
        num_closer_negatives: rows of which a negative shares more words with the anchor than the positive does; None:
            no negatives.
        columns: of texts.
        overlaps: column -> share of words in common with the anchor (Jaccard).
        scores: of scored pairs.
        examples: some rows, drawn at random; anchor, positive and all negatives of each.
    """

    kind: str
    num_rows: int
    negatives_per_row: tuple[int, int]
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
        lines = {"rows": f"{self.num_rows:,} {self.kind}", "repeated rows": f"{self.num_repeated_rows:,}"}
        if len(self.columns) == 1:  # texts without a partner
            return lines
        lines |= {
            "repeated anchors": f"{self.num_repeated_anchors:,} ({share * self.num_repeated_anchors:.0f} %); "
            f"the most frequent one: {self.most_rows_of_an_anchor:,} x",
            "rows with a text twice": f"{self.num_rows_with_equal_texts:,}",
            "positive here, negative there": f"{self.num_contradictions:,}",
        }
        few, most = self.negatives_per_row
        if most:
            lines["negatives of a row"] = f"{few}" if few == most else f"{few} to {most}"
        if self.num_closer_negatives is not None:
            lines["negative shares more words"] = f"{share * self.num_closer_negatives:.0f} % of rows"
        return lines

    @property
    def labelled_examples(self) -> list[list[tuple[str, str]]]:
        """The examples, each text with the name of its column; negatives have one column."""
        names = [column.name for column in self.columns]
        return [[(names[min(index, 2)], text) for index, text in enumerate(row)] for row in self.examples]

    def to_json(self) -> dict[str, Any]:
        """For files."""
        return asdict(self)
