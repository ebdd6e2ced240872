"""TripletTable: training rows in memory-mapped columns, and Triplets: some of them as lists."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

TEXT_COLUMNS = ("anchor", "positive", "negative")
INSTRUCTION, IS_SYMMETRIC = "instruction", "is_symmetric"
_ROWS_AT_A_TIME = 4096


@dataclass(frozen=True)
class Triplets:
    """Some rows; lists of one length.

    Attributes:
        anchors: of scored pairs, the first sentence.
        positives: of scored pairs, the second sentence.
        negatives: None when the data has none.
        instructions: what each row's queries are for; None: the model's own instruction.
        are_symmetric: whether a row's positive and negative are queries as its anchor is; true of scored pairs.
        scores: (B,) float64 of scored pairs, else None.
    """

    anchors: list[str]
    positives: list[str]
    negatives: list[str] | None
    instructions: list[str | None]
    are_symmetric: list[bool]
    scores: np.ndarray | None = None

    @classmethod
    def plain(cls, anchors: list[str], positives: list[str], negatives: list[str] | None = None) -> "Triplets":
        """Rows without instructions."""
        return cls(anchors, positives, negatives, [None] * len(anchors), [False] * len(anchors))

    @property
    def texts(self) -> list[list[str]]:
        """The two or three columns of texts."""
        return [self.anchors, self.positives, *([self.negatives] if self.negatives is not None else [])]

    def slice(self, rows: slice) -> "Triplets":
        """Some of the rows, side by side."""
        return Triplets(
            anchors=self.anchors[rows],
            positives=self.positives[rows],
            negatives=None if self.negatives is None else self.negatives[rows],
            instructions=self.instructions[rows],
            are_symmetric=self.are_symmetric[rows],
            scores=None if self.scores is None else self.scores[rows],
        )


class TripletTable:
    """Memory-mapped triplets, pairs without a negative, or scored pairs.

    Args:
        table: columns anchor, positive, maybe negative (string), for each NAME_id (uint64), maybe score (float64), and
            the rows' instruction (string or null) and is_symmetric (bool).
        drawn: the rows that count, as `draw` chose them; None: all.
    """

    def __init__(self, table: pa.Table, *, drawn: np.ndarray | None = None) -> None:
        self._table = table
        self._drawn = np.arange(len(table)) if drawn is None else drawn
        names = [name for name in TEXT_COLUMNS if name in table.column_names]
        self._names = names
        ids = [table.column(f"{name}_id").to_numpy()[self._drawn] for name in names]
        self.text_ids = self._drawn[:, None] if self.has_scores else np.stack(ids, axis=1)
        """(num_triplets, 2 or 3), equal where texts are equal; rows with a common one never meet in a batch. Scored
        pairs that share a text may, so each has an id of its own: (num_pairs, 1)."""

    def __len__(self) -> int:
        return len(self._drawn)

    @property
    def has_instructions(self) -> bool:
        """Whether some row has an instruction of its own."""
        return bool(self._table[INSTRUCTION].null_count < len(self._table))

    @property
    def has_negatives(self) -> bool:
        """Whether every row has a hard negative."""
        return "negative" in self._names

    @property
    def has_scores(self) -> bool:
        """Whether the rows are scored pairs."""
        return "score" in self._table.column_names

    @property
    def kind(self) -> str:
        """What the rows are, for people to read."""
        return "scored pairs" if self.has_scores else "triplets" if self.has_negatives else "pairs"

    @property
    def text_columns(self) -> list[str]:
        """Names of the two or three columns of texts, as files call them."""
        return ["sentence1", "sentence2"] if self.has_scores else list(self._names)

    def chunks(self, indices: np.ndarray | None = None) -> Iterator[Triplets]:
        """The rows numbered by `indices` (None: all), some thousands at a time."""
        wanted = np.arange(len(self)) if indices is None else indices
        for start in range(0, len(wanted), _ROWS_AT_A_TIME):
            yield self.rows(wanted[start : start + _ROWS_AT_A_TIME])

    def rows(self, indices: np.ndarray) -> Triplets:
        """Texts of the rows numbered by `indices`."""
        names = [*self._names, INSTRUCTION, IS_SYMMETRIC, *(["score"] if self.has_scores else [])]
        # Not `Table.take`: on a column of many batches it first copies the whole column into memory.
        texts = self._table.select(names)
        columns = {
            name: [texts[name][row].as_py() for row in self._drawn[indices].tolist()] for name in texts.column_names
        }
        return Triplets(
            anchors=columns["anchor"],
            positives=columns["positive"],
            negatives=columns.get("negative"),
            instructions=columns[INSTRUCTION],
            are_symmetric=columns[IS_SYMMETRIC],
            scores=np.array(columns["score"]) if self.has_scores else None,
        )

    def scores_differ(self) -> bool:
        """Whether scored pairs have at least two different scores."""
        bounds = pc.min_max(self._table.column("score"))
        return bool(bounds["min"] != bounds["max"])

    def draw(self, num_rows: int) -> "TripletTable":
        """A view of so many rows drawn at random, always the same ones; a smaller draw is part of a larger one."""
        order = np.random.default_rng(0).permutation(len(self._drawn))[:num_rows]
        return TripletTable(self._table, drawn=self._drawn[order])
