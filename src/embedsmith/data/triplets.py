"""Sources -> TripletTable: validated once, kept in an Arrow file, memory-mapped from there.

Rows are triplets, pairs, scored pairs, or texts, and the columns of a file say which; one run has one kind, but for
pairs, which may stand beside triplets.

A source is a file, a glob, `sample`, or a hub dataset by its name (`hub.py`). Invariant: a table
exists only if every row of every source is sound, and its name holds all that it depends on: the files' contents, what
they are called (its remarks name them), and the settings. Memory: one record batch while converting, mapped pages
after. A second load reads neither files nor table: files are known by size and time of change (`digests.py`), and what
is to know of a large table is noted (`table_notes.py`).
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from embedsmith.data.doubts import row_doubts, text_doubts
from embedsmith.data.faults import Faults
from embedsmith.data.hub import find_commit, hub_rows, is_hub_id
from embedsmith.data.parquet import ColumnRows
from embedsmith.data.plain_batches import PlainRows, find_plain_rows, used_columns
from embedsmith.data.readers import (
    CHANGED,
    FileRow,
    expand_sources,
    read_columns,
    read_rows,
    unpacked,
)
from embedsmith.data.remarks import Remarks
from embedsmith.data.roles import (
    ColumnNames,
    Roles,
    TrainingRow,
    find_roles,
    named_faults,
    read_row,
    unused_in_passages,
)
from embedsmith.data.sample import SAMPLE, sample_triplets_path
from embedsmith.data.table import TableFacts, TripletTable
from embedsmith.data.table_file import TableRow, one_writer, write_table
from embedsmith.settings.data import TrainSource
from embedsmith.settings.prompts import instruction_fault
from embedsmith.support import files
from embedsmith.support.digests import kept_digest
from embedsmith.support.errors import DataError

log = logging.getLogger(__name__)

_WITH_AND_WITHOUT_NEGATIVES = {"triplets", "pairs"}
"""Kinds of rows that may stand beside each other: a pair is a triplet with no negative."""
_FORMAT_VERSION = 4
"""Raised with every change of what is kept of a file, remarks included."""


def load_triplets(
    sources: Sequence[str | TrainSource],
    *,
    columns: ColumnNames | None = None,
    cache_folder: Path | None = None,
) -> TripletTable:
    """Load triplets, pairs, scored pairs or texts from files, globs, hub datasets or the built-in sample.

    Args:
        sources: see the file's docstring.
        columns: {"anchor": ..., "positive": ..., "negative": ..., "instruction": ...} where the names are unusual, or
            {"sentence1": ..., "sentence2": ..., "score": ...}, or {"text": ...}; of positives and negatives also
            several, as a list. Of sources that do not name their own.
        cache_folder: where the Arrow file is kept; None: in the user's cache.

    Raises:
        DataError: any source is missing, has faulty rows or rows of another kind; all are named. All scores are equal.
        MissingExtraError: a hub dataset is asked for without the `datasets` package.
    """
    faults = Faults()
    columns = columns or {}
    for fault in named_faults(columns):
        faults.add("data.columns", None, fault)
    numbered = [
        (number, one)
        for number, source in enumerate(sources)
        for one in _origins(source, columns=columns, faults=faults)
    ]
    origins = [one for _, one in numbered]
    for fault in _doubled(origins):
        faults.add("data.train", None, fault)
    faults.raise_if_any(what="training data")
    origins = [replace(one, contents=find_commit(one.place)) if isinstance(one.place, str) else one for one in origins]

    folder = cache_folder or files.cache_root() / "triplets"
    target = folder / f"{_fingerprint(origins, columns)}.arrow"
    is_fixed = all(origin.contents for origin in origins)
    table = _open_cached(target) if is_fixed else None
    if table is None:
        with one_writer(target):
            # Another process of this run, or another run, may have made it while this one waited.
            table = _open_cached(target, talks=False) if is_fixed else None
            if table is None:
                _convert(origins, target, faults=faults)
                table = TripletTable.open(target)
                table.look_through()
    if table.has_scores and not table.scores_differ():
        names = ", ".join(str(origin.place) for origin in origins)
        raise DataError(f"All scores in {names} are equal: they order nothing, so nothing can be learned.")
    return table.from_sources([number for number, _ in numbered])


@dataclass(frozen=True)
class _Origin:
    """A file, or a hub dataset by its id, and what its source says of all its rows.

    Attributes:
        contents: fingerprint of a file, commit of a dataset; "": not known.
    """

    place: Path | str
    contents: str
    instruction: str | None
    is_symmetric: bool
    columns: ColumnNames

    def has_changed(self) -> bool:
        """Whether a file no longer has its contents, or is gone; what stands at a commit never does."""
        try:
            return isinstance(self.place, Path) and _contents(self.place) != self.contents
        except OSError:
            return True


def _origins(source: str | TrainSource, *, columns: ColumnNames, faults: Faults) -> list[_Origin]:
    source = TrainSource(files=source) if isinstance(source, str) else source
    name = str(sample_triplets_path()) if source.files == SAMPLE else source.files
    if source.instruction is not None and (fault := instruction_fault(source.instruction)):
        faults.add("data.train", None, f"the instruction of {source.files} {fault}")
    for fault in named_faults(source.columns):
        faults.add("data.train", None, f"the columns of {source.files}: {fault}")
    said = (source.instruction, source.symmetric, source.columns or columns)
    if is_hub_id(name):
        return [_Origin(name, "", *said)]
    found = []
    for path in expand_sources([name], faults=faults):
        try:
            found.append(_Origin(path, _contents(path), *said))
        except OSError as error:
            faults.add(path, None, f"cannot be read: {error.strerror or error}")
    return found


def _contents(path: Path) -> str:
    return files.fingerprint([path], digest_of=kept_digest)


def _doubled(origins: Sequence[_Origin]) -> Iterator[str]:
    """What is named twice, so that its rows would count twice; under another instruction they are other rows."""
    found: dict[tuple[Any, ...], Path | str] = {}
    for one in origins:
        place = unpacked(one.place) if isinstance(one.place, Path) else one.place
        what = (place, one.instruction, one.is_symmetric, json.dumps(sorted(one.columns.items())))
        if what in found:
            yield f"the same data is named twice: as {found[what]} and as {one.place}"
        found.setdefault(what, one.place)


def _fingerprint(origins: Sequence[_Origin], columns: ColumnNames) -> str:
    facts: list[Any] = [_FORMAT_VERSION, sorted(columns.items())]
    for one in origins:
        own = [] if one.columns == columns else [sorted(one.columns.items())]
        facts.append([str(one.place), one.contents, one.instruction, one.is_symmetric, *own])
    return hashlib.blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()


def _open_cached(path: Path, *, talks: bool = True) -> TripletTable | None:
    """The table that was kept under this name, or None; a damaged one is taken for none, and said."""
    if not path.exists():
        return None
    try:
        return TripletTable.open(path)
    except (ValueError, KeyError, TypeError, OSError) as error:  # pyarrow's errors are ValueErrors and OSErrors
        if talks:
            log.warning("The table kept in %s is damaged (%s); it is made anew.", path, error)
        return None


def _all_rows(origins: Sequence[_Origin], *, remarks: Remarks, faults: Faults) -> Iterator[TableRow | pa.RecordBatch]:
    first: tuple[str, str] | None = None
    for number, origin in enumerate(origins):
        num_faults = faults.count
        reader = _Reader(origin, remarks=remarks, faults=faults)
        for line, row, kind in reader.read():
            first = first or (str(origin.place), kind)
            if not (kind == first[1] or {kind, first[1]} == _WITH_AND_WITHOUT_NEGATIVES):
                faults.add(origin.place, None, f"holds {kind}, but {first[0]} holds {first[1]}; a run takes one kind")
                break
            remarks.kinds[str(origin.place)] = kind
            if isinstance(row, PlainRows):
                for place, doubts in row.doubts.items():
                    remarks.add_doubts(origin.place, line + place, doubts)
                yield row.as_batch(origin=number, instruction=origin.instruction, is_symmetric=origin.is_symmetric)
                continue
            for texts in [(row.anchor, positive, *row.negatives) for positive in row.positives] or [(row.anchor,)]:
                if row.score is None:
                    remarks.add_doubts(origin.place, line, _doubts_of(texts))
                yield TableRow(
                    texts=texts,
                    origin=number,
                    line=line,
                    instruction=row.instruction or origin.instruction,
                    is_symmetric=origin.is_symmetric or row.score is not None,
                    score=row.score,
                )
        if faults.count == num_faults and origin.has_changed():
            faults.add(origin.place, None, CHANGED)  # its rows are not those that the table would be named after


def _doubts_of(texts: tuple[str, ...]) -> list[str]:
    return text_doubts(texts) if len(texts) == 1 else row_doubts(texts[0], texts[1], texts[2:])


Read = tuple[int, TrainingRow | PlainRows, str]
"""Line, row or rows from there on, and their kind."""


class _Reader:
    """Reads what is sound of a file or a hub dataset; the first row says what the others must have."""

    def __init__(self, origin: _Origin, *, remarks: Remarks, faults: Faults) -> None:
        self._place, self._commit = origin.place, origin.contents
        self._columns, self._remarks, self._faults = origin.columns, remarks, faults
        self._first: Roles | None = None
        self._known: dict[tuple[str, ...], Roles | str] = {}

    def read(self) -> Iterator[Read]:
        if not isinstance(self._place, Path):
            for rows in hub_rows(self._place, commit=self._commit):
                yield from self._read_columns(rows)
        elif self._place.name.endswith(".parquet"):
            if columns := read_columns(self._place, faults=self._faults):
                yield from self._read_columns(columns)
        else:
            yield from self._read_each(read_rows(self._place, faults=self._faults))

    def _read_columns(self, rows: ColumnRows) -> Iterator[Read]:
        """Many at once where nothing is wrong with them, else each by itself."""
        num_done = 0
        roles = self._find_roles(tuple(rows.names))
        names = None if isinstance(roles, str) else used_columns(roles)
        if isinstance(roles, Roles) and names:
            for batch in rows.batches(names):
                plain = find_plain_rows(batch, roles, line=rows.first + num_done + 1)
                if plain is None:
                    yield from self._read_each(rows.rows(num_done, len(batch)))
                else:
                    self._first = self._first or roles
                    yield plain.line, plain, roles.kind
                num_done += len(batch)
        yield from self._read_each(rows.rows(num_done))

    def _read_each(self, rows: Iterator[tuple[int, FileRow]]) -> Iterator[Read]:
        for line, values in rows:
            roles = self._find_roles(tuple(values))
            if isinstance(roles, str):
                self._faults.add(self._place, line, roles)
                if self._first is None:
                    return
                continue
            self._first = self._first or roles
            row, bad = read_row(values, roles)
            for fault in bad:
                self._faults.add(self._place, line, fault)
            if row is not None:
                if unused := [*unused_in_passages(values, roles)]:
                    self._remarks.add_unused(self._place, unused)
                yield line, row, roles.kind

    def _find_roles(self, names: tuple[str, ...]) -> Roles | str:
        if names not in self._known:
            roles = _check_roles(find_roles(names, columns=self._columns), names=names, first=self._first)
            self._known[names] = roles
            if isinstance(roles, Roles) and self._place != sample_triplets_path():  # what ours has besides is known
                self._remarks.add_unused(self._place, roles.unused)
        return self._known[names]


def _check_roles(roles: Roles | str, *, names: Sequence[str], first: Roles | None) -> Roles | str:
    """The roles of a later row, or how they differ from the first one's."""
    if first is None:
        return roles
    if isinstance(roles, Roles):
        return roles.why_not_like(first) or roles
    missing = [columns[0] for columns in first.columns.values() if not set(columns) & set(names)]
    return f"has no '{missing[0]}'" if missing else roles


def _convert(origins: Sequence[_Origin], target: Path, *, faults: Faults) -> None:
    remarks = Remarks()
    rows = _all_rows(origins, remarks=remarks, faults=faults)
    names = tuple(str(origin.place) for origin in origins)
    write_table(rows, target, facts=lambda: TableFacts(names, remarks.sentences()), faults=faults)
