"""Sources -> TripletTable: validated once, kept in an Arrow file, memory-mapped from there.

Rows are triplets, pairs, scored pairs, or texts; one run has one kind, and the columns of its files say which.

A source is a file, a glob, `sample`, or a hub dataset id (`owner/name` or `owner/name:config`). Invariant: a table
exists only if every row of every source is sound, and its name holds all that it depends on: the files' contents, what
they are called (its remarks name them), and the settings. Memory: one record batch while converting, mapped pages
after. Cost of a second load: half a second a gigabyte of files.
"""

import hashlib
import json
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedsmith.data.doubts import row_doubts, text_doubts
from embedsmith.data.faults import Faults
from embedsmith.data.readers import FileRow, expand_sources, is_data_file, is_text_file, read_rows, unpacked
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
from embedsmith.data.table_file import TableRow, write_table
from embedsmith.settings.config import TrainSource
from embedsmith.settings.prompts import instruction_fault
from embedsmith.support import files
from embedsmith.support.errors import DataError, MissingExtraError

log = logging.getLogger(__name__)

_FORMAT_VERSION = 4
"""Raised with every change of what is kept of a file, remarks included."""
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")


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
            several, as a list.
        cache_folder: where the Arrow file is kept; None: in the user's cache.

    Raises:
        DataError: any source is missing, has faulty rows or rows of another kind; all are named. All scores are equal.
        MissingExtraError: a hub dataset is asked for without the `datasets` package.
    """
    faults = Faults()
    columns = columns or {}
    for fault in named_faults(columns):
        faults.add("data.columns", None, fault)
    numbered = [(number, one) for number, source in enumerate(sources) for one in _origins(source, faults=faults)]
    origins = [one for _, one in numbered]
    for fault in _doubled(origins):
        faults.add("data.train", None, fault)
    faults.raise_if_any(what="training data")

    folder = cache_folder or files.cache_root() / "triplets"
    target = folder / f"{_fingerprint(origins, columns)}.arrow"
    # A hub dataset may change under its name: it is read anew each time (its own cache makes that cheap).
    is_fixed = not any(isinstance(origin.place, str) for origin in origins)
    table = _open_cached(target) if is_fixed else None
    if table is None:
        _convert(origins, target, columns=columns, faults=faults)
        table = TripletTable.open(target)
    if table.has_scores and not table.scores_differ():
        names = ", ".join(str(origin.place) for origin in origins)
        raise DataError(f"All scores in {names} are equal: they order nothing, so nothing can be learned.")
    return table.from_sources([number for number, _ in numbered])


@dataclass(frozen=True)
class _Origin:
    """A file, or a hub dataset by its id, and what its source says of all its rows.

    Attributes:
        contents: fingerprint of a file.
    """

    place: Path | str
    contents: str
    instruction: str | None
    is_symmetric: bool


def _origins(source: str | TrainSource, *, faults: Faults) -> list[_Origin]:
    source = TrainSource(files=source) if isinstance(source, str) else source
    name = str(sample_triplets_path()) if source.files == SAMPLE else source.files
    if source.instruction is not None and (fault := instruction_fault(source.instruction)):
        faults.add("data.train", None, f"the instruction of {source.files} {fault}")
    if is_hub_id(name):
        return [_Origin(name, "", source.instruction, source.symmetric)]
    found = []
    for path in expand_sources([name], faults=faults):
        try:
            found.append(_Origin(path, files.fingerprint([path]), source.instruction, source.symmetric))
        except OSError as error:
            faults.add(path, None, f"cannot be read: {error.strerror or error}")
    return found


def _doubled(origins: Sequence[_Origin]) -> Iterator[str]:
    """What is named twice, so that its rows would count twice; under another instruction they are other rows."""
    found: dict[tuple[Any, ...], Path | str] = {}
    for one in origins:
        place = unpacked(one.place) if isinstance(one.place, Path) else one.place
        what = (place, one.instruction, one.is_symmetric)
        if what in found:
            yield f"the same data is named twice: as {found[what]} and as {one.place}"
        found.setdefault(what, one.place)


def is_hub_id(source: str) -> bool:
    """Whether a source is a hub dataset, and no file, glob or `sample`."""
    is_local = (
        Path(source).exists() or is_data_file(source) or is_text_file(source) or any(mark in source for mark in "*?[")
    )
    return not is_local and _HUB_ID.fullmatch(source) is not None


def _fingerprint(origins: Sequence[_Origin], columns: ColumnNames) -> str:
    facts: list[Any] = [_FORMAT_VERSION, sorted(columns.items())]
    facts += [[str(one.place), one.contents, one.instruction, one.is_symmetric] for one in origins]
    return hashlib.blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()


def _open_cached(path: Path) -> TripletTable | None:
    """The table that was kept under this name, or None; a damaged one is taken for none, and said."""
    if not path.exists():
        return None
    try:
        return TripletTable.open(path)
    except (ValueError, KeyError, TypeError, OSError) as error:  # pyarrow's errors are ValueErrors and OSErrors
        log.warning("The table kept in %s is damaged (%s); it is made anew.", path, error)
        return None


def _all_rows(
    origins: Sequence[_Origin], *, columns: ColumnNames, remarks: Remarks, faults: Faults
) -> Iterator[TableRow]:
    first: tuple[str, str] | None = None
    for number, origin in enumerate(origins):
        for line, row, kind in _rows_of(origin.place, columns=columns, remarks=remarks, faults=faults):
            first = first or (str(origin.place), kind)
            if kind != first[1]:
                faults.add(origin.place, None, f"holds {kind}, but {first[0]} holds {first[1]}; a run takes one kind")
                break
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


def _doubts_of(texts: tuple[str, ...]) -> list[str]:
    return text_doubts(texts) if len(texts) == 1 else row_doubts(texts[0], texts[1], texts[2:])


def _rows_of(
    place: Path | str, *, columns: ColumnNames, remarks: Remarks, faults: Faults
) -> Iterator[tuple[int, TrainingRow, str]]:
    """Line, row and kind of what is sound in a file; the first row says what the others must have."""
    first: Roles | None = None
    known: dict[tuple[str, ...], Roles | str] = {}
    rows = read_rows(place, faults=faults) if isinstance(place, Path) else _hub_rows(place)
    for line, values in rows:
        names = tuple(values)
        if names not in known:
            roles = _check_roles(find_roles(names, columns=columns), names=names, first=first)
            known[names] = roles
            if isinstance(roles, Roles) and place != sample_triplets_path():  # what ours has besides is known
                remarks.add_unused(place, roles.unused)
        roles = known[names]
        if isinstance(roles, str):
            faults.add(place, line, roles)
            if first is None:
                return
            continue
        first = first or roles
        row, bad = read_row(values, roles)
        for fault in bad:
            faults.add(place, line, fault)
        if row is not None:
            if unused := [*unused_in_passages(values, roles)]:
                remarks.add_unused(place, unused)
            yield line, row, roles.kind


def _check_roles(roles: Roles | str, *, names: Sequence[str], first: Roles | None) -> Roles | str:
    """The roles of a later row, or how they differ from the first one's."""
    if first is None:
        return roles
    if isinstance(roles, Roles):
        return roles.why_not_like(first) or roles
    missing = [columns[0] for columns in first.columns.values() if not set(columns) & set(names)]
    return f"has no '{missing[0]}'" if missing else roles


def _convert(origins: Sequence[_Origin], target: Path, *, columns: ColumnNames, faults: Faults) -> None:
    remarks = Remarks()
    rows = _all_rows(origins, columns=columns, remarks=remarks, faults=faults)
    names = tuple(str(origin.place) for origin in origins)
    write_table(rows, target, facts=lambda: TableFacts(names, remarks.sentences()), faults=faults)


def _hub_rows(name: str) -> Iterator[tuple[int, FileRow]]:
    try:
        import datasets
    except ImportError:
        raise MissingExtraError("datasets", extra="hub", needed_for=f"Reading the hub dataset '{name}'") from None
    dataset_id, _, config = name.partition(":")
    try:
        rows = datasets.load_dataset(dataset_id, config or None, split="train")
    except Exception as error:  # the library raises many kinds: not found, offline, no such config, no such split
        raise DataError(
            f"'{name}' is no file, and as a hub dataset it cannot be loaded: {error}\n"
            "Check the spelling, the network, and name a config as owner/name:config where it has several."
        ) from error
    yield from enumerate(rows, start=1)
