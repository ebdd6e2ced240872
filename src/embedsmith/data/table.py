"""TripletTable: training rows in memory-mapped columns."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import chain, pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedsmith.data.faults import place_of
from embedsmith.data.look_through import count_values, digest_rows, digest_sources, first_rows
from embedsmith.data.mapped import MappedFile
from embedsmith.data.rows import Triplets
from embedsmith.data.table_notes import kept_note
from embedsmith.data.text_ids import ColumnIds, RowNumbers, TextIds
from embedsmith.settings.choices import Side

INSTRUCTION, IS_SYMMETRIC, NEGATIVES, SCORE = "instruction", "is_symmetric", "negatives", "score"
TEXT_IDS, ORIGIN, LINE = "text_ids", "origin", "line"
_FACTS = b"facts"
_ROWS_AT_A_TIME = 4096
_NOTED_INSTRUCTIONS = 1000
_LET_GO_ROWS = 256
"""Of a large file; a row's texts and numbers lie at ten places, and each brings its neighbourhood with it."""
Rows = range | np.ndarray
"""Numbers of rows."""


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

    Memory: some words for each record batch; of a draw, eight bytes a row.

    Args:
        table: columns anchor, and unless each row is one text: positive (string), maybe negatives (list of string),
            text_ids (list of uint64), maybe score (float64); the rows' instruction (string or null) and is_symmetric
            (bool), and where each row is from: origin (its number in `facts`, never smaller than the row's before) and
            line.
        facts: about the whole table.
        drawn: the rows that count, as `draw` chose them; None: all.
        source_of_origin: for each of `facts.origins`, the number of the source it is from, never smaller than the one
            before; None: each is one.
        file: where the table is mapped from; None: it is in memory.
    """

    def __init__(
        self,
        table: pa.Table,
        *,
        facts: TableFacts,
        drawn: np.ndarray | None = None,
        source_of_origin: Sequence[int] | None = None,
        file: MappedFile | None = None,
    ) -> None:
        self._table = table
        self._source_of_origin = np.array(
            range(len(facts.origins)) if source_of_origin is None else source_of_origin, dtype=np.int64
        )
        self._drawn = drawn
        self._file = file
        self._num_looked_at = 0
        self.facts = facts

    @classmethod
    def open(cls, path: Path) -> "TripletTable":
        """Map the file of a table; its last record batch carries the facts.

        Raises:
            ValueError, KeyError, TypeError, OSError: the file is damaged, or none of ours.
        """
        file = MappedFile(path)
        reader = pa.ipc.open_file(pa.BufferReader(file.buffer))
        table = reader.read_all()
        table.validate()
        last = reader.get_batch_with_custom_metadata(reader.num_record_batches - 1)
        facts = json.loads(last.custom_metadata[_FACTS])
        file.let_go()
        return cls(table, facts=TableFacts(tuple(facts["origins"]), tuple(facts["remarks"])), file=file)

    def __len__(self) -> int:
        return len(self._table) if self._drawn is None else len(self._drawn)

    def look_through(self) -> None:
        """Find all that is noted of a large table, so that nobody has to read it through later."""
        _ = (self.fingerprint, self.negatives_per_row, self._rows_of_origins, self.instructions())
        _ = self.has_scores and self.scores_differ()

    @cached_property
    def fingerprint(self) -> str:
        """Equal for equal rows in equal order, whatever files they are from."""
        return str(self._known("fingerprint", self._read_fingerprint))

    def _read_fingerprint(self) -> str:
        names = {*self._table.column_names} - {ORIGIN, LINE}
        return digest_rows(self._table, names=names, drawn=self._drawn, let_go=self._let_go)

    def _known(self, name: str, compute: Callable[[], Any]) -> Any:
        """What holds of the rows that count; of a large file it is computed once for all time."""
        if self._file is None or not self._file.is_large:
            return compute()
        with self._file.read_through():
            found = kept_note(self._file.path, f"{name}{self._name_of_draw}", compute)
        self._let_go()
        return found

    @cached_property
    def _name_of_draw(self) -> str:
        return "" if self._drawn is None else f" of {hashlib.sha256(self._drawn.tobytes()).hexdigest()[:16]}"

    def _let_go(self) -> None:
        if self._file is not None:
            self._file.let_go()

    @cached_property
    def text_ids(self) -> TextIds:
        """Rows with a common one never meet in a batch. Scored pairs that share a text may, and so may equal texts, so
        each row has an id of its own."""
        if self.has_scores or self.has_texts:
            return RowNumbers(len(self))
        return self._column_ids

    @cached_property
    def _column_ids(self) -> ColumnIds:
        return ColumnIds(self._table.column(TEXT_IDS), drawn=self._drawn)

    @property
    def sources(self) -> np.ndarray:
        """(num_rows,) int64: number of the source that each row is from."""
        found = np.empty(len(self), dtype=np.int64)
        for number, rows in enumerate(self.rows_by_source()):
            found[slice(rows.start, rows.stop) if isinstance(rows, range) else rows] = number
        return found

    def rows_by_source(self, num_sources: int | None = None) -> list[Rows]:
        """The rows of each source; of a whole table they lie side by side."""
        num_sources = num_sources or int(self._source_of_origin.max()) + 1
        if self._drawn is not None:
            origins = np.array(self._values(ORIGIN, np.arange(len(self))), dtype=np.int64)
            sources = self._source_of_origin[origins]
            return [np.flatnonzero(sources == number) for number in range(num_sources)]
        sizes = np.zeros(num_sources, dtype=np.int64)
        np.add.at(sizes, self._source_of_origin, self._rows_of_origins)
        bounds = np.concatenate([[0], np.cumsum(sizes)]).tolist()
        return [range(start, stop) for start, stop in pairwise(bounds)]

    @property
    def source_fingerprint(self) -> str:
        """Equal where the same rows are of one source."""
        if self._drawn is not None:
            return hashlib.sha256(self.sources.tobytes()).hexdigest()[:16]
        return digest_sources([len(rows) for rows in self.rows_by_source()])

    @cached_property
    def _rows_of_origins(self) -> list[int]:
        """How many rows of the whole table are from each origin."""
        return list(self._known("rows of origins", self._count_origins))

    def _count_origins(self) -> list[int]:
        return count_values(self._table.column(ORIGIN), num_values=len(self.facts.origins))

    @property
    def has_instructions(self) -> bool:
        """Whether some row has an instruction of its own."""
        return bool(self._table[INSTRUCTION].null_count < len(self._table))

    @cached_property
    def negatives_per_row(self) -> tuple[int, int]:
        """The smallest and the largest number of hard negatives of a row."""
        if self.has_scores or self.has_texts:
            return 0, 0
        few, most = self._known("texts of a row", self._column_ids.counts)
        return few - 2, most - 2

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
        num_rows = len(self) if indices is None else len(indices)
        with self._file.read_through() if self._file else nullcontext():
            for start in range(0, num_rows, _ROWS_AT_A_TIME):
                stop = min(start + _ROWS_AT_A_TIME, num_rows)
                yield self.rows(np.arange(start, stop) if indices is None else indices[start:stop])

    def share(self, indices: np.ndarray, *, own: slice) -> Triplets:
        """As `rows`, with the texts of some alone: of the others there is how many they have, as empty ones."""
        read = self.rows(indices[own])
        counts = [max(0, len(self.text_ids[row]) - 2) for row in indices.tolist()]
        empty = [""] * len(indices)
        found = Triplets(
            anchors=empty.copy(),
            positives=[] if self.has_texts else empty.copy(),
            negatives=[[""] * count for count in counts],
            instructions=[None] * len(indices),
            are_symmetric=[False] * len(indices),
            scores=np.array(self._values(SCORE, indices)) if self.has_scores else None,
        )
        for field in ("anchors", "positives", "negatives", "instructions", "are_symmetric"):
            if values := getattr(read, field):
                getattr(found, field)[own] = values
        return found

    def rows(self, indices: np.ndarray) -> Triplets:
        """Texts of the rows numbered by `indices`."""
        of_kind = ("positive", SCORE if self.has_scores else NEGATIVES)
        names = ["anchor", INSTRUCTION, IS_SYMMETRIC, *(of_kind if not self.has_texts else ())]
        # Not `Table.take`: on a column of many batches it first copies the whole column into memory.
        columns = {name: self._values(name, indices) for name in names}
        self._num_looked_at += len(indices)
        if self._num_looked_at >= _LET_GO_ROWS:
            self._let_go()
            self._num_looked_at = 0
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
        if not self.has_instructions:
            return {}
        noted = self._known("instructions", self._find_few_instructions)
        return self._find_instructions() if noted is None else dict(noted)

    def _find_few_instructions(self) -> dict[str, int] | None:
        found = self._find_instructions()
        return found if len(found) <= _NOTED_INSTRUCTIONS else None

    def _find_instructions(self) -> dict[str, int]:
        if self._drawn is None:
            return first_rows(self._table[INSTRUCTION])
        texts = self._values(INSTRUCTION, np.arange(len(self)))
        found = {text: row for row, text in reversed([*enumerate(texts)]) if text is not None}
        return dict(sorted(found.items(), key=itemgetter(1)))

    def scores_differ(self) -> bool:
        """Whether scored pairs have at least two different scores."""
        return bool(self._known("scores differ", self._compare_scores))

    def _compare_scores(self) -> bool:
        bounds = pc.min_max(self._table.column(SCORE))
        return bool(bounds["min"] != bounds["max"])

    def draw(self, num_rows: int) -> "TripletTable":
        """A view of so many rows drawn at random, always the same ones; a smaller draw is part of a larger one."""
        # The values of `permutation`, in half its memory.
        order = np.arange(len(self), dtype=np.int32 if len(self) < 2**31 else np.int64)
        np.random.default_rng(0).shuffle(order)
        drawn = order[:num_rows].astype(np.int64)
        return TripletTable(
            self._table,
            facts=self.facts,
            drawn=drawn if self._drawn is None else self._drawn[drawn],
            source_of_origin=self._source_of_origin.tolist(),
            file=self._file,
        )

    def from_sources(self, source_of_origin: Sequence[int]) -> "TripletTable":
        """The same rows, where it is known which origins are of one source."""
        return TripletTable(
            self._table, facts=self.facts, drawn=self._drawn, source_of_origin=source_of_origin, file=self._file
        )

    def _values(self, name: str, indices: np.ndarray) -> list[Any]:
        column = self._table[name]
        rows = indices if self._drawn is None else self._drawn[indices]
        return [column[row].as_py() for row in rows.tolist()]
