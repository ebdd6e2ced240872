"""Plain records of hard-negative mining: what was found."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from embedsmith.records.data_facts import Distribution


class Dropped(StrEnum):
    """Why a text near an anchor is not taken."""

    KNOWN = "the anchor itself, and what its rows have already"
    ABSOLUTE_MARGIN = "too near for the absolute margin: false negatives"
    RELATIVE_MARGIN = "too near for the relative margin: false negatives"
    MAX_SCORE = "above the largest score"
    MIN_SCORE = "below the smallest score"
    FIRST_RANK = "before the first rank"


@dataclass(frozen=True)
class MinedExample:
    """A row: its texts, and their cosine similarity to the anchor."""

    anchor: str
    positive: str
    positive_score: float
    negatives: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class MiningReport:
    """What came of mining.

    Attributes:
        num_rows: rows with an anchor and a positive that were given.
        num_written: rows in the file.
        num_anchors: distinct anchors, each asked for once.
        num_candidates: distinct texts that negatives could be taken from.
        num_placeholders: texts such as n/a that were left out of them.
        num_wanted: negatives of a row.
        num_negatives: negatives mined, over all rows written.
        num_short: rows given that have fewer mined ones than wanted.
        num_none: of these, rows without any.
        num_disjoint: rows of the file without a common text, which is about the largest batch that it fills.
        num_looked_at: pairs of an anchor and a near text that the rules were asked about.
        dropped: rule -> how many of those it left out; each counts under the first rule that does, in this order.
        positives: cosine similarity of an anchor and its farthest positive.
        negatives: of an anchor and a text mined for it.
        recall: of the index, against exact search for some anchors; None: all search was exact.
        examples: some rows.
    """

    num_rows: int
    num_written: int
    num_anchors: int
    num_candidates: int
    num_placeholders: int
    num_wanted: int
    num_negatives: int
    num_short: int
    num_none: int
    num_disjoint: int
    num_looked_at: int
    dropped: Mapping[Dropped, int]
    positives: Distribution
    negatives: Distribution
    recall: float | None
    examples: tuple[MinedExample, ...]
