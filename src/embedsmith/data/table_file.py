"""Rows -> the Arrow file of a TripletTable. Memory: one record batch."""

import hashlib
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from filelock import FileLock

from embedsmith.data.doubts import text_key
from embedsmith.data.faults import Faults
from embedsmith.data.table import INSTRUCTION, IS_SYMMETRIC, LINE, NEGATIVES, ORIGIN, SCORE, TEXT_IDS, TableFacts
from embedsmith.support.errors import DataError

_BATCH_ROWS = 8192
_BATCH_CHARACTERS = 2**26
TEXT_ID_BYTES = 8


@dataclass(frozen=True)
class TableRow:
    """One triplet, pair, scored pair or text on its way into the table.

    Attributes:
        texts: anchor, positive, negatives; or one text alone.
        origin: number of the file it is from.
        line: in that file.
        instruction: its own, or its source's.
        is_symmetric: whether all its texts are queries.
        score: of a scored pair.
    """

    texts: tuple[str, ...]
    origin: int = 0
    line: int = 0
    instruction: str | None = None
    is_symmetric: bool = False
    score: float | None = None


def write_table(
    rows: Iterator[TableRow | pa.RecordBatch], target: Path, *, facts: Callable[[], TableFacts], faults: Faults
) -> None:
    """Write rows of one kind as the file of a `TripletTable`, atomically.

    Args:
        rows: at least one; some together as `contrast_batch` has them.
        target: replaced if it is there.
        facts: asked for when all rows were seen; they go into a last record batch, which has no rows.
        faults: of reading; nothing is left where there are any.

    Raises:
        DataError: there are faults, or no row.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own: where there are no locks several processes may write at once; the last to finish stays.
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    writer = batch = None
    try:
        with temporary.open("wb") as sink:
            for batch in _record_batches(rows):
                writer = writer or pa.ipc.new_file(sink, batch.schema)
                writer.write_batch(batch)
            faults.raise_if_any(what="training data")
            if writer is None or batch is None:
                raise DataError("The training data holds no row.")
            writer.write_batch(batch.slice(0, 0), custom_metadata=facts().as_metadata())
            writer.close()
            sink.flush()
            os.fsync(sink.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def one_writer(target: Path) -> Iterator[None]:
    """A block that one process at a time enters for a table; what one that was killed had begun is removed first."""
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(target.with_name(f".{target.name}.lock"))
    try:
        lock.acquire()
        for begun in target.parent.glob(f".{target.name}.*.tmp"):
            begun.unlink(missing_ok=True)
    except NotImplementedError:  # its file system knows no locks
        pass
    try:
        yield
    finally:
        lock.release()


def _record_batches(rows: Iterator[TableRow | pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Batches bounded in rows and in text: an Arrow column of strings holds two gigabytes.

    Where they end depends on the rows alone, not on how they come.
    """
    gathered = _Gathered()
    for item in rows:
        if isinstance(item, TableRow):
            gathered.add_row(item)
            if gathered.is_full:
                yield gathered.take()
            continue
        while len(item):
            item = item.slice(gathered.add_some(item))
            if gathered.is_full:
                yield gathered.take()
    if gathered.num_rows:
        yield gathered.take()


class _Gathered:
    """Rows on their way into a batch."""

    def __init__(self) -> None:
        self._parts: list[pa.RecordBatch] = []
        self._rows: list[TableRow] = []
        self._num_characters = 0
        self.num_rows = 0

    @property
    def is_full(self) -> bool:
        return self.num_rows == _BATCH_ROWS or self._num_characters > _BATCH_CHARACTERS

    def add_row(self, row: TableRow) -> None:
        self._rows.append(row)
        self._num_characters += sum(map(len, row.texts))
        self.num_rows += 1

    def add_some(self, rows: pa.RecordBatch) -> int:
        """Add the first ones, up to the one that fills the batch; how many that are."""
        some = rows.slice(0, _BATCH_ROWS - self.num_rows)
        while self._num_characters + (size := _count_characters(some)) > _BATCH_CHARACTERS and len(some) > 1:
            some = some.slice(0, len(some) // 2)
        self._end_rows()
        self._parts.append(some)
        self._num_characters += size
        self.num_rows += len(some)
        return len(some)

    def take(self) -> pa.RecordBatch:
        """All of them, with nothing between them or beside them: a part of a batch carries the rest of it along."""
        self._end_rows()
        parts, num_rows = self._parts, self.num_rows
        self._parts, self._num_characters, self.num_rows = [], 0, 0
        return parts[0].take(pa.array(np.arange(num_rows))) if len(parts) == 1 else pa.concat_batches(parts)

    def _end_rows(self) -> None:
        if self._rows:
            self._parts.append(_record_batch(self._rows))
            self._rows = []


def _count_characters(rows: pa.RecordBatch) -> int:
    columns = [rows.column("anchor"), rows.column("positive"), rows.column(NEGATIVES).flatten()]
    return sum(pc.sum(pc.utf8_length(column)).as_py() or 0 for column in columns)


def _record_batch(rows: Sequence[TableRow]) -> pa.RecordBatch:
    columns: dict[str, pa.Array] = {
        "anchor": pa.array([row.texts[0] for row in rows], pa.string()),
        INSTRUCTION: pa.array([row.instruction for row in rows], pa.string()),
        IS_SYMMETRIC: pa.array([row.is_symmetric for row in rows], pa.bool_()),
        ORIGIN: pa.array([row.origin for row in rows], pa.int32()),
        LINE: pa.array([row.line for row in rows], pa.int64()),
    }
    if len(rows[0].texts) == 1:
        return pa.RecordBatch.from_pydict(columns)
    columns["positive"] = pa.array([row.texts[1] for row in rows], pa.string())
    if rows[0].score is not None:
        columns[SCORE] = pa.array([row.score for row in rows], pa.float64())
    else:
        columns[NEGATIVES] = pa.array([row.texts[2:] for row in rows], pa.list_(pa.string()))
        columns[TEXT_IDS] = pa.array([[*map(text_id, row.texts)] for row in rows], pa.list_(pa.uint64()))
    return pa.RecordBatch.from_pydict(columns)


def contrast_batch(
    texts: Sequence[pa.Array],
    *,
    text_ids: np.ndarray,
    instructions: pa.Array,
    is_symmetric: bool,
    origin: int,
    lines: np.ndarray,
) -> pa.RecordBatch:
    """Triplets or pairs as a batch of the table, as a `TableRow` each would be.

    Args:
        texts: anchors, positives, and any number of columns of negatives; (n,) strings each.
        text_ids: of the texts, (n, columns) uint64.
        instructions: (n,) strings, or nulls.
        is_symmetric, origin: of all rows.
        lines: (n,) int64.
    """
    num_rows, num_negatives = len(lines), len(texts) - 2
    negatives = pa.chunked_array(texts[2:], pa.string()).combine_chunks()
    if num_negatives > 1:  # from one column behind the other to one row behind the other
        negatives = negatives.take(pa.array(np.arange(len(negatives)).reshape(num_negatives, num_rows).T.ravel()))
    return pa.RecordBatch.from_pydict(
        {
            "anchor": texts[0],
            INSTRUCTION: instructions,
            IS_SYMMETRIC: pa.array(np.full(num_rows, is_symmetric)),
            ORIGIN: pa.array(np.full(num_rows, origin, dtype=np.int32)),
            LINE: pa.array(lines),
            "positive": texts[1],
            NEGATIVES: _lists(negatives, size=num_negatives, num_rows=num_rows),
            TEXT_IDS: _lists(pa.array(text_ids.ravel()), size=num_negatives + 2, num_rows=num_rows),
        }
    )


def _lists(values: pa.Array, *, size: int, num_rows: int) -> pa.Array:
    offsets = np.arange(num_rows + 1, dtype=np.int32) * np.int32(size)
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def text_id(text: str) -> int:
    """Equal for equal texts, `text_key` says which; of others equal by chance alone, one pair in 2^64."""
    digest = hashlib.blake2b(text_key(text).encode(), digest_size=TEXT_ID_BYTES).digest()
    return int.from_bytes(digest, "little")
