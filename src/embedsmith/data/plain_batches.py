"""Some thousands of rows at once: columns of texts -> the same rows as the table has them, if nothing is wrong there.

    columns --find_plain_rows--> PlainRows, or None: then rows are read one by one, and whatever is wrong is named

Several times as fast as row by row, with the same table to the last byte. It is for the plain case: an anchor, one
positive, any number of negatives and perhaps an instruction, each a column of texts. Whether a text is an ordinary one
(words of printable ASCII, a space between them) a pattern tells; the few others are looked at by the rules of
`doubts.py`, as all are elsewhere.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedsmith.data.columns import text_fault
from embedsmith.data.doubts import PLACEHOLDERS, row_doubts
from embedsmith.data.roles import ANCHOR, CONTRAST_ROLES, INSTRUCTION, NEGATIVE, POSITIVE, Roles
from embedsmith.data.table_file import TEXT_ID_BYTES, contrast_batch, text_id
from embedsmith.settings.prompts import instruction_fault

_ORDINARY = "^[0-9A-Za-z][!-~]*( [!-~]+)*$"
"""Its own `text_key`, no punctuation alone, and no list that was written as text."""
_PLACEHOLDER = rf"(?i)^({'|'.join(word.replace('.', '[.]') for word in sorted(PLACEHOLDERS))})[.]*$"
_TEXT_TYPES = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)


@dataclass(frozen=True)
class PlainRows:
    """Rows without a fault.

    Attributes:
        line: of the first one; the others follow.
        texts: anchors, positives, and negatives of each column; (n,) strings without nulls.
        text_ids: numbers of the texts, (n, columns) uint64.
        instructions: (n,) strings; null where a row has none.
        doubts: row, from 0, -> why it teaches the wrong thing.
    """

    line: int
    texts: Sequence[pa.Array]
    text_ids: np.ndarray
    instructions: pa.Array
    doubts: dict[int, list[str]]

    def as_batch(self, *, origin: int, instruction: str | None, is_symmetric: bool) -> pa.RecordBatch:
        """For the table; `instruction` is their source's."""
        own = self.instructions if instruction is None else self.instructions.fill_null(instruction)
        return contrast_batch(
            self.texts,
            text_ids=self.text_ids,
            instructions=own,
            is_symmetric=is_symmetric,
            origin=origin,
            lines=np.arange(self.line, self.line + len(own), dtype=np.int64),
        )


def used_columns(roles: Roles) -> list[str] | None:
    """The columns that `find_plain_rows` looks at; None where rows of these roles are none of its."""
    if not {ANCHOR, POSITIVE} <= roles.columns.keys() <= {*CONTRAST_ROLES} or len(roles.columns[POSITIVE]) > 1:
        return None
    return [*dict.fromkeys(name for columns in roles.columns.values() for name in columns)]


def find_plain_rows(batch: pa.RecordBatch, roles: Roles, *, line: int) -> PlainRows | None:
    """The rows of a batch, or None where they have to be read one by one.

    Args:
        batch: has the columns that are used.
        roles: what they mean.
        line: of its first row.
    """
    names = [name for role in (ANCHOR, POSITIVE, NEGATIVE) for name in roles.columns.get(role, ())]
    read = [_as_texts(batch, name) for name in names]
    texts = [column for column in read if column is not None and not column.null_count]
    instructions = _instructions(batch, roles)
    if instructions is None or len(texts) < len(read):
        return None
    doubtful = _find_doubtful(texts)
    ids = np.stack([_text_ids(column) for column in texts], axis=1)
    doubts = {}
    for row in doubtful.tolist():
        values = [column[row].as_py() for column in texts]
        if any(map(text_fault, values)):
            return None
        ids[row] = [text_id(value) for value in values]
        if found := row_doubts(values[0], values[1], values[2:]):
            doubts[row] = found
    return PlainRows(line, texts, ids, instructions, doubts)


def _as_texts(batch: pa.RecordBatch, name: str) -> pa.Array | None:
    column = batch.column(batch.schema.get_field_index(name))
    if pa.types.is_dictionary(column.type) and pa.types.is_string(column.type.value_type):
        column = column.dictionary_decode()
    if not any(is_type(column.type) for is_type in _TEXT_TYPES):
        return None
    try:
        column = column.cast(pa.string())
        column.validate(full=True)  # is it UTF-8?
    except pa.ArrowException:
        return None
    return column


def _instructions(batch: pa.RecordBatch, roles: Roles) -> pa.Array | None:
    if INSTRUCTION not in roles.columns:
        return pa.nulls(len(batch), pa.string())
    column = _as_texts(batch, roles.columns[INSTRUCTION][0])
    if column is None:
        return None
    distinct = [text for text in column.unique().to_pylist() if text]
    if any(text_fault(text) or instruction_fault(text) for text in distinct):
        return None
    return pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)


def _find_doubtful(texts: Sequence[pa.Array]) -> np.ndarray:
    """Rows with a text that is no ordinary one, or with two that are one, (n,) int64."""
    anchor, positive, *negatives = texts
    wrong = [pc.equal(anchor, positive)]
    wrong += [pc.equal(negative, other) for negative in negatives for other in (anchor, positive)]
    for column in texts:
        wrong.append(pc.invert(pc.match_substring_regex(column, _ORDINARY)))
        wrong.append(pc.match_substring_regex(column, _PLACEHOLDER))
    return np.flatnonzero(np.logical_or.reduce([mask.to_numpy(zero_copy_only=False) for mask in wrong]))


def _text_ids(column: pa.Array) -> np.ndarray:
    """(n,) uint64, right where a text is its own key."""
    offsets = np.frombuffer(column.buffers()[1], dtype=np.int32)[
        column.offset : column.offset + len(column) + 1
    ].tolist()
    data = memoryview(column.buffers()[2] or b"")
    new, size = hashlib.blake2b, TEXT_ID_BYTES
    digests = [new(data[start:stop], digest_size=size).digest() for start, stop in pairwise(offsets)]
    return np.frombuffer(b"".join(digests), dtype="<u8")
