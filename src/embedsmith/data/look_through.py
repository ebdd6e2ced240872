"""What takes a look at every row of a table, batch by batch of its file, so that nothing is held for each row."""

import hashlib
from collections.abc import Callable, Collection, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_NUMBERS_AT_A_TIME = 2**13
_LET_GO_BYTES = 2**26


def digest_rows(
    table: pa.Table, *, names: Collection[str], drawn: np.ndarray | None, let_go: Callable[[], None]
) -> str:
    """Equal for equal rows in equal order.

    Args:
        table: of which all columns of these names count.
        names: of columns.
        drawn: the rows that count, (n,); None: all.
        let_go: called now and then, when what was read is no longer looked at.
    """
    digest = hashlib.sha256()
    for numbers in _row_numbers(len(table), drawn):
        digest.update(numbers.tobytes())
    num_bytes = 0
    for name in sorted(names):
        digest.update(name.encode())
        for chunk in table.column(name).chunks:
            for buffer in chunk.buffers():
                digest.update(b"" if buffer is None else buffer)
                num_bytes += 0 if buffer is None else buffer.size
            if num_bytes > _LET_GO_BYTES:
                let_go()
                num_bytes = 0
    return digest.hexdigest()[:32]


def _row_numbers(num_rows: int, drawn: np.ndarray | None) -> Iterator[np.ndarray]:
    """(n,) int64, some at a time."""
    count = num_rows if drawn is None else len(drawn)
    for start in range(0, count, _NUMBERS_AT_A_TIME):
        stop = min(start + _NUMBERS_AT_A_TIME, count)
        yield np.arange(start, stop) if drawn is None else drawn[start:stop].astype(np.int64)


def digest_sources(sizes: Collection[int]) -> str:
    """Equal where rows side by side are of the same sources: the digest of each row's number of its source, int64."""
    digest = hashlib.sha256()
    for number, size in enumerate(sizes):
        for start in range(0, size, _NUMBERS_AT_A_TIME):
            digest.update(np.full(min(_NUMBERS_AT_A_TIME, size - start), number, dtype=np.int64).tobytes())
    return digest.hexdigest()[:16]


def count_values(column: pa.ChunkedArray, *, num_values: int) -> list[int]:
    """How often each of the numbers 0 .. num_values - 1 stands in a column of whole numbers."""
    counts = np.zeros(num_values, dtype=np.int64)
    for chunk in column.chunks:
        counts += np.bincount(chunk.to_numpy(), minlength=num_values)
    return [int(count) for count in counts]


def first_rows(column: pa.ChunkedArray) -> dict[str, int]:
    """Each text of a column -> the first row that has it, in the order of these rows; nulls are none."""
    found: dict[str, int] = {}
    first = 0
    for chunk in column.chunks:
        encoded = chunk.dictionary_encode()
        for code, text in enumerate(encoded.dictionary.to_pylist()):  # in the order of their first rows
            if text not in found:
                found[text] = first + int(pc.index(encoded.indices, code).as_py())
        first += len(chunk)
    return found
