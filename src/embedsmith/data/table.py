"""TripletTable: training rows in memory-mapped columns, and Triplets: some of them as lists."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedsmith.data.faults import place_of
from embedsmith.settings.config import Side

INSTRUCTION, IS_SYMMETRIC, NEGATIVES, SCORE = "instruction", "is_symmetric", "negatives", "score"
TEXT_IDS, ORIGIN, LINE = "text_ids", "origin", "line"
_FACTS = b"facts"
_ROWS_AT_A_TIME = 4096


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


@dataclass(frozen=True)
class TextIds:
    """For each row the numbers of its texts, equal where texts are equal.

    Attributes:
        values: of all rows, one behind the other.
        starts: (num_rows + 1,) where each row's begin.
    """

    values: np.ndarray
    starts: np.ndarray

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        return self.values[self.starts[row] : self.starts[row + 1]]


@dataclass(frozen=True)
class TableFacts:
    """What was found while a table was made.

    Attributes:
        origins: files and datasets that the rows are from.
        remarks: sentences that a user should read before training: columns not used, rows that teach the wrong thing.
    """

    origins: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    def as_metadata(self) -> dict[bytes, bytes]:
        """For a record batch of the table's file."""
        return {_FACTS: json.dumps(asdict(self)).encode()}


class TripletTable:
    """Memory-mapped triplets, pairs without a negative, scored pairs, or texts.

    Args:
        table: columns anchor, and unless each row is one text: positive (string), maybe negatives (list of string),
            text_ids (list of uint64), maybe score (float64); the rows' instruction (string or null) and is_symmetric
            (bool), and where each row is from: origin (its number in `facts`) and line.
        facts: about the whole table.
        drawn: the rows that count, as `draw` chose them; None: all.
        source_of_origin: for each of `facts.origins`, the number of the source it is from; None: each is one.
    """

    def __init__(
        self,
        table: pa.Table,
        *,
        facts: TableFacts,
        drawn: np.ndarray | None = None,
        source_of_origin: Sequence[int] | None = None,
    ) -> None:
        self._table = table
        self._source_of_origin = np.array(
            range(len(facts.origins)) if source_of_origin is None else source_of_origin, dtype=np.int64
        )
        self._is_whole = drawn is None
        self._drawn = np.arange(len(table)) if drawn is None else drawn
        self.facts = facts

    @classmethod
    def open(cls, path: Path) -> "TripletTable":
        """Map the file of a table; its last record batch carries the facts.

        Raises:
            ValueError, KeyError, TypeError, OSError: the file is damaged, or none of ours.
        """
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        table = reader.read_all()
        table.validate()
        last = reader.get_batch_with_custom_metadata(reader.num_record_batches - 1)
        facts = json.loads(last.custom_metadata[_FACTS])
        return cls(table, facts=TableFacts(tuple(facts["origins"]), tuple(facts["remarks"])))

    def __len__(self) -> int:
        return len(self._drawn)

    @property
    def fingerprint(self) -> str:
        """Equal for equal rows in equal order, whatever files they are from."""
        digest = hashlib.sha256(self._drawn.tobytes())
        for name in sorted({*self._table.column_names} - {ORIGIN, LINE}):
            digest.update(name.encode())
            for chunk in self._table.column(name).chunks:
                for buffer in chunk.buffers():
                    digest.update(b"" if buffer is None else buffer)
        return digest.hexdigest()[:32]

    @cached_property
    def text_ids(self) -> TextIds:
        """Rows with a common one never meet in a batch. Scored pairs that share a text may, and so may equal texts, so
        each row has an id of its own."""
        if self.has_scores or self.has_texts:
            return TextIds(self._drawn, np.arange(len(self._drawn) + 1))
        column = self._table.column(TEXT_IDS)
        counts = pc.list_value_length(column).to_numpy()
        starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        values = pc.list_flatten(column).to_numpy()
        if self._is_whole:
            return TextIds(values, starts)
        parts = [values[starts[row] : starts[row + 1]] for row in self._drawn]
        return TextIds(np.concatenate(parts), np.concatenate([[0], np.cumsum(counts[self._drawn], dtype=np.int64)]))

    @cached_property
    def sources(self) -> np.ndarray:
        """(num_rows,) int64: number of the source that each row is from."""
        origins = self._table.column(ORIGIN).to_numpy()[self._drawn]
        found: np.ndarray = self._source_of_origin[origins]
        return found

    @property
    def source_fingerprint(self) -> str:
        """Equal where the same rows are of one source."""
        return hashlib.sha256(self.sources.tobytes()).hexdigest()[:16]

    @property
    def has_instructions(self) -> bool:
        """Whether some row has an instruction of its own."""
        return bool(self._table[INSTRUCTION].null_count < len(self._table))

    @cached_property
    def negatives_per_row(self) -> tuple[int, int]:
        """The smallest and the largest number of hard negatives of a row."""
        if self.has_scores or self.has_texts:
            return 0, 0
        counts = np.diff(self.text_ids.starts) - 2
        return int(counts.min()), int(counts.max())

    @property
    def has_negatives(self) -> bool:
        """Whether some row has a hard negative."""
        return self.negatives_per_row[1] > 0

    @property
    def has_scores(self) -> bool:
        """Whether the rows are scored pairs."""
        return SCORE in self._table.column_names

    @property
    def has_texts(self) -> bool:
        """Whether each row is one text."""
        return "positive" not in self._table.column_names

    @property
    def kind(self) -> str:
        """What the rows are, for people to read."""
        if self.has_texts:
            return "texts"
        return "scored pairs" if self.has_scores else "triplets" if self.has_negatives else "pairs"

    @property
    def size(self) -> str:
        """How many rows of what kind, and how many hard negatives each where that is not one."""
        few, most = self.negatives_per_row
        counts = f"{few}" if few == most else f"{few} to {most}"
        each = f" with {counts} negatives each" if most > 1 or (few, most) == (0, 1) else ""
        kind = self.kind.removesuffix("s") if len(self) == 1 else self.kind
        return f"{len(self):,} {kind}{each}"

    @property
    def text_columns(self) -> list[str]:
        """Names of the roles of texts, three at most."""
        if self.has_texts:
            return ["text"]
        if self.has_scores:
            return ["sentence1", "sentence2"]
        return ["anchor", "positive", *(["negative"] if self.has_negatives else [])]

    def chunks(self, indices: np.ndarray | None = None) -> Iterator[Triplets]:
        """The rows numbered by `indices` (None: all), some thousands at a time."""
        wanted = np.arange(len(self)) if indices is None else indices
        for start in range(0, len(wanted), _ROWS_AT_A_TIME):
            yield self.rows(wanted[start : start + _ROWS_AT_A_TIME])

    def rows(self, indices: np.ndarray) -> Triplets:
        """Texts of the rows numbered by `indices`."""
        of_kind = ("positive", SCORE if self.has_scores else NEGATIVES)
        names = ["anchor", INSTRUCTION, IS_SYMMETRIC, *(of_kind if not self.has_texts else ())]
        # Not `Table.take`: on a column of many batches it first copies the whole column into memory.
        columns = {name: self._values(name, indices) for name in names}
        return Triplets(
            anchors=columns["anchor"],
            positives=columns.get("positive", []),
            negatives=columns.get(NEGATIVES) or [[] for _ in indices],
            instructions=columns[INSTRUCTION],
            are_symmetric=columns[IS_SYMMETRIC],
            scores=np.array(columns[SCORE]) if self.has_scores else None,
        )

    def texts_by_side(self, *, with_negatives: bool) -> dict[Side, set[str]]:
        """The distinct texts of all rows that are queries, and those that are documents."""
        found: dict[Side, set[str]] = {side: set() for side in Side}
        for rows in self.chunks():
            texts = chain(*rows.groups(with_negatives=with_negatives))
            for text, is_query in zip(texts, rows.are_queries(with_negatives=with_negatives), strict=True):
                found[Side.QUERY if is_query else Side.DOCUMENT].add(text)
        return found

    def place(self, row: int) -> str:
        """File and line of a row."""
        (origin,), (line,) = self._values(ORIGIN, np.array([row])), self._values(LINE, np.array([row]))
        return place_of(self.facts.origins[origin], line)

    def instructions(self) -> dict[str, int]:
        """The rows' own instructions -> the first row that has each."""
        column = self._table[INSTRUCTION].dictionary_encode().combine_chunks()
        codes = column.indices.fill_null(-1).to_numpy(zero_copy_only=False)[self._drawn]
        found, first_rows = np.unique(codes, return_index=True)
        ordered = sorted((int(row), int(code)) for code, row in zip(found, first_rows, strict=True) if code >= 0)
        return {column.dictionary[code].as_py(): row for row, code in ordered}

    def scores_differ(self) -> bool:
        """Whether scored pairs have at least two different scores."""
        bounds = pc.min_max(self._table.column(SCORE))
        return bool(bounds["min"] != bounds["max"])

    def draw(self, num_rows: int) -> "TripletTable":
        """A view of so many rows drawn at random, always the same ones; a smaller draw is part of a larger one."""
        order = np.random.default_rng(0).permutation(len(self._drawn))[:num_rows]
        return TripletTable(
            self._table, facts=self.facts, drawn=self._drawn[order], source_of_origin=self._source_of_origin.tolist()
        )

    def from_sources(self, source_of_origin: Sequence[int]) -> "TripletTable":
        """The same rows, where it is known which origins are of one source."""
        drawn = None if self._is_whole else self._drawn
        return TripletTable(self._table, facts=self.facts, drawn=drawn, source_of_origin=source_of_origin)

    def _values(self, name: str, indices: np.ndarray) -> list[Any]:
        column = self._table[name]
        return [column[row].as_py() for row in self._drawn[indices].tolist()]
