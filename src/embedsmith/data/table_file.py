"""Rows -> the Arrow file of a TripletTable. Memory: one record batch."""

import hashlib
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from embedsmith.data.doubts import text_key
from embedsmith.data.faults import Faults
from embedsmith.data.table import INSTRUCTION, IS_SYMMETRIC, LINE, NEGATIVES, ORIGIN, SCORE, TEXT_IDS, TableFacts
from embedsmith.support.errors import DataError

_BATCH_ROWS = 8192
_BATCH_CHARACTERS = 2**26


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


def write_table(rows: Iterator[TableRow], target: Path, *, facts: Callable[[], TableFacts], faults: Faults) -> None:
    """Write rows of one kind as the file of a `TripletTable`, atomically.

    Args:
        rows: at least one.
        target: replaced if it is there.
        facts: asked for when all rows were seen; they go into a last record batch, which has no rows.
        faults: of reading; nothing is left where there are any.

    Raises:
        DataError: there are faults, or no row.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own: the processes of one run may all convert at once; the last to finish stays.
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


def _record_batches(rows: Iterator[TableRow]) -> Iterator[pa.RecordBatch]:
    """Batches bounded in rows and in text: an Arrow column of strings holds two gigabytes."""
    chunk: list[TableRow] = []
    num_characters = 0
    for row in rows:
        chunk.append(row)
        num_characters += sum(map(len, row.texts))
        if len(chunk) == _BATCH_ROWS or num_characters > _BATCH_CHARACTERS:
            yield _record_batch(chunk)
            chunk, num_characters = [], 0
    if chunk:
        yield _record_batch(chunk)


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
        columns[TEXT_IDS] = pa.array([[*map(_text_id, row.texts)] for row in rows], pa.list_(pa.uint64()))
    return pa.RecordBatch.from_pydict(columns)


def _text_id(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text_key(text).encode(), digest_size=8).digest(), "little")
