"""Triplets: some rows of training data, role by role, as lists."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Triplets:
    """Some rows; lists of one length, positives aside where rows hold one text.

    Attributes:
        anchors: of scored pairs, the first sentence; of rows with one text, that text.
        positives: of scored pairs, the second sentence; of rows with one text, an empty list.
        negatives: the hard negatives of each row, any number of them; none in pairs and scored pairs.
        instructions: what each row's queries are for; None: the model's own instruction.
        are_symmetric: whether a row's positive and negatives are queries as its anchor is; true of scored pairs. Of
            rows with one text, whether that is a query.
        scores: (B,) float64 of scored pairs, else None.
    """

    anchors: list[str]
    positives: list[str]
    negatives: list[list[str]]
    instructions: list[str | None]
    are_symmetric: list[bool]
    scores: np.ndarray | None = None

    @classmethod
    def plain(
        cls, anchors: list[str], positives: list[str], negatives: Sequence[list[str]] | None = None
    ) -> "Triplets":
        """Rows without instructions."""
        num_rows = len(anchors)
        own = [[] for _ in anchors] if negatives is None else list(negatives)
        return cls(anchors, positives, own, [None] * num_rows, [False] * num_rows)

    def __len__(self) -> int:
        return len(self.anchors)

    @property
    def texts(self) -> list[tuple[str, ...]]:
        """Row by row: anchor, positive, negatives; or the text alone."""
        if not self.positives:
            return [(text,) for text in self.anchors]
        rows = zip(self.anchors, self.positives, self.negatives, strict=True)
        return [(anchor, positive, *negatives) for anchor, positive, negatives in rows]

    @property
    def negative_rows(self) -> list[int]:
        """For each negative, one row's behind the other's, the row it belongs to."""
        return [row for row, own in enumerate(self.negatives) for _ in own]

    def groups(self, *, with_negatives: bool = True) -> list[list[str]]:
        """The texts by role: anchors, positives, and the negatives of all rows, one row's behind the other's."""
        negatives = [text for own in self.negatives for text in own] if with_negatives else []
        return [self.anchors, self.positives, negatives]

    def are_queries(self, *, with_negatives: bool = True) -> list[bool]:
        """Whether each text of `groups` is a query, else a document, one group behind the other."""
        if not self.positives:
            return self.are_symmetric
        of_negatives = [self.are_symmetric[row] for row in self.negative_rows] if with_negatives else []
        return [*[True] * len(self), *self.are_symmetric, *of_negatives]

    def slice(self, rows: slice) -> "Triplets":
        """Some of the rows, side by side."""
        return Triplets(
            anchors=self.anchors[rows],
            positives=self.positives[rows],
            negatives=self.negatives[rows],
            instructions=self.instructions[rows],
            are_symmetric=self.are_symmetric[rows],
            scores=None if self.scores is None else self.scores[rows],
        )
