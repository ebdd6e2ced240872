"""A parquet file -> rows whose columns are read when they are asked for, and only then.

A value that is no UTF-8 comes as its bytes, and one that Python has no type for as pyarrow's own scalar: neither is a
text, so whoever needs a text refuses it by row and column, and nobody stumbles over a column that nobody needs.
Memory: some thousands of values of each column asked for.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from embedsmith.data.faults import Faults, doubled_name
from embedsmith.support.errors import DataError

_BATCH_ROWS = 8192


class ColumnRows(Protocol):
    """Rows that lie in columns: some of these, many rows at once, or row by row."""

    names: Sequence[str]
    """Of all columns."""
    first: int
    """Number of the first row, from 0."""

    def batches(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The rows of some columns, some thousands at a time; ends early where they cannot be read."""

    def rows(self, start: int = 0, count: int | None = None) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """(row number from 1, row) of some rows, from `start`, counted from 0, on; without a count, of all others.

        Raises:
            DataError: a column that somebody asks for is damaged.
        """


class ParquetRows:
    """The rows of a file, as `ColumnRows`."""

    first = 0

    def __init__(self, path: Path, file: pq.ParquetFile) -> None:
        self.names: Sequence[str] = file.schema_arrow.names
        self._file = file  # stays open for the rows: they read their values later
        self._columns = {name: _Column(path, file, name) for name in self.names}

    def __len__(self) -> int:
        return int(self._file.metadata.num_rows)

    def batches(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """As `ColumnRows.batches`."""
        with suppress(pa.ArrowException, OSError):
            yield from self._file.iter_batches(batch_size=_BATCH_ROWS, columns=[*names], use_threads=False)

    def rows(self, start: int = 0, count: int | None = None) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """As `ColumnRows.rows`."""
        for number in range(start, len(self) if count is None else start + count):
            yield number + 1, _Row(self._columns, number)


class BatchRows:
    """Rows that are in memory, as `ColumnRows`.

    Args:
        table: they.
        first: number of the first one, from 0.
    """

    def __init__(self, table: pa.Table, *, first: int) -> None:
        self.names: Sequence[str] = table.column_names
        self._table = table
        self._columns = {name: _TableColumn(table[name]) for name in self.names}
        self.first = first

    def __len__(self) -> int:
        return len(self._table)

    def batches(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """As `ColumnRows.batches`."""
        yield from self._table.select([*names]).to_batches()

    def rows(self, start: int = 0, count: int | None = None) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """As `ColumnRows.rows`; numbers are those of all rows."""
        for number in range(start, len(self) if count is None else start + count):
            yield self.first + number + 1, _Row(self._columns, number)


def open_parquet(path: Path, *, faults: Faults) -> ParquetRows | None:
    """The rows of a file; None where it has a fault, which is noted."""
    try:
        file = pq.ParquetFile(path)
        names = file.schema_arrow.names
    except (pa.ArrowException, UnicodeDecodeError) as error:
        faults.add(path, None, f"is not a readable parquet file: {error}")
        return None
    if (num_rows := file.metadata.num_rows) < 0:
        faults.add(path, None, f"is not a readable parquet file: it says that it has {num_rows} rows")
        return None
    if doubled := doubled_name(names):
        faults.add(path, None, doubled)
        return None
    return ParquetRows(path, file)


def parquet_rows(path: Path, *, faults: Faults) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield (row number from 1, row).

    Raises:
        DataError: a column that somebody asks for is damaged.
    """
    if rows := open_parquet(path, faults=faults):
        yield from rows.rows()


class _Row(Mapping[str, Any]):
    """One row: names -> values, each read when it is asked for."""

    def __init__(self, columns: Mapping[str, "_Column | _TableColumn"], number: int) -> None:
        self._columns, self._number = columns, number

    def __getitem__(self, name: str) -> Any:
        return self._columns[name].value(self._number)

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)


class _TableColumn:
    """One column that is in memory."""

    def __init__(self, values: pa.ChunkedArray) -> None:
        self._values = values

    def value(self, row: int) -> Any:
        return _python_value(self._values[row])


class _Column:
    """One column of a file, a batch in memory; made for being read forwards."""

    def __init__(self, path: Path, file: pq.ParquetFile, name: str) -> None:
        self._path, self._file, self._name = path, file, name
        self._rewind()

    def _rewind(self) -> None:
        self._batches = self._file.iter_batches(batch_size=_BATCH_ROWS, columns=[self._name])
        self._first = 0  # number of the batch's first row
        self._values: Any = ()

    def value(self, row: int) -> Any:
        if row < self._first:
            self._rewind()
        while row >= self._first + len(self._values):
            self._first += len(self._values)
            self._values = self._next_batch()
        return _python_value(self._values[row - self._first])

    def _next_batch(self) -> Any:
        try:
            batch = next(self._batches)
        except (pa.ArrowException, OSError, StopIteration) as error:
            raise DataError(
                f"{self._path}: column {self._name!r} cannot be read after row {self._first}: {error}\n"
                "The file is damaged; get it anew."
            ) from None
        return batch.column(batch.schema.get_field_index(self._name))


def _python_value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        if isinstance(scalar, pa.DictionaryScalar):
            return _python_value(scalar.value)
        if isinstance(scalar, pa.ListScalar):
            return [_python_value(value) for value in scalar.values]
        return scalar.as_buffer().to_pybytes() if isinstance(scalar, pa.BinaryScalar) else scalar
    except (ValueError, OverflowError, ImportError):  # nanoseconds, the year 300000, a time zone unknown here
        return scalar
