"""For each row of a table the numbers of its texts, equal where texts are equal; read where they lie, on the disk."""

from bisect import bisect_right
from typing import Protocol

import numpy as np
import pyarrow as pa


class TextIds(Protocol):
    """For each row the numbers of its texts, equal where texts are equal; a 2-d array of them is one, too."""

    def __len__(self) -> int:
        """How many rows there are."""

    def __getitem__(self, row: int) -> np.ndarray:
        """Those of one row, (num_texts,)."""


class RowNumbers:
    """One number for each row, so that all are different."""

    def __init__(self, num_rows: int) -> None:
        self._num_rows = num_rows

    def __len__(self) -> int:
        return self._num_rows

    def __getitem__(self, row: int) -> np.ndarray:
        return np.array([row])


class ColumnIds:
    """Numbers that lie in a column of lists; memory: a few words for each batch of the column.

    Args:
        column: of lists of uint64 without nulls.
        drawn: the rows that count; None: all.
    """

    def __init__(self, column: pa.ChunkedArray, *, drawn: np.ndarray | None) -> None:
        self._chunks = column.chunks
        self._firsts = np.cumsum([0, *map(len, self._chunks)]).tolist()
        self._views: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._drawn = drawn

    def __len__(self) -> int:
        return self._firsts[-1] if self._drawn is None else len(self._drawn)

    def __getitem__(self, row: int) -> np.ndarray:
        if self._drawn is not None:
            row = int(self._drawn[row])
        number = bisect_right(self._firsts, row) - 1
        values, offsets = self._view(number)
        place = row - self._firsts[number]
        found: np.ndarray = values[offsets[place] : offsets[place + 1]]
        return found

    def counts(self) -> tuple[int, int]:
        """The smallest and the largest number of texts of a row."""
        few, most = np.iinfo(np.int64).max, 0
        drawn = None if self._drawn is None else np.sort(self._drawn)
        for number, first in enumerate(self._firsts[:-1]):
            counts = np.diff(self._view(number)[1])
            if drawn is not None:
                counts = counts[drawn[slice(*np.searchsorted(drawn, (first, first + len(counts))))] - first]
            if len(counts):
                few, most = min(few, int(counts.min())), max(most, int(counts.max()))
        return few, most

    def _view(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        if number not in self._views:
            chunk = self._chunks[number]
            self._views[number] = (chunk.values.to_numpy(), chunk.offsets.to_numpy())
        return self._views[number]
