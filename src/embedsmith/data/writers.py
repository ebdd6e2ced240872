"""Rows -> a file that `readers` reads again: .jsonl, .csv or .tsv, each maybe .gz. Memory: the whole file."""

import csv
import gzip
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from embedsmith.data.table import TripletTable
from embedsmith.support import files
from embedsmith.support.errors import DataError

_OUTPUTS = (".tsv", ".csv", ".jsonl", ".tsv.gz", ".csv.gz", ".jsonl.gz")
Value = str | float | None | list[str]
_NOT_IN = {".tsv": re.compile(r"[\t\r\n\0]"), ".csv": re.compile(r"\0")}
"""Characters that a format has no way to write, or that no reader takes."""


def check_output(path: Path, *, option: str = "--out") -> None:
    """Make sure that a file can be written under this name.

    Raises:
        DataError: its format is unknown, or the name is taken.
        RunError: it lies where nothing can be written.
    """
    if not path.name.endswith(_OUTPUTS):
        raise DataError(f"{path}: unknown format to write; known are {', '.join(_OUTPUTS)}.")
    if path.exists():
        raise DataError(f"{path} exists already.\nRemove it or choose another name.")
    files.check_output(path, option=option)


def write_rows(path: Path, *, header: Sequence[str], rows: Iterable[Sequence[Value]]) -> None:
    """Write rows under their column names, atomically; the suffix says how. None: null, or an empty field.

    Lists go into a .jsonl only.

    Raises:
        DataError: as `check_output`; or a text holds what its format cannot: a NUL, in a .tsv a tab or line break.
    """
    check_output(path)
    buffer = io.StringIO()
    kind = Path(path.name.removesuffix(".gz")).suffix
    if kind == ".jsonl":
        for row in rows:
            buffer.write(json.dumps(dict(zip(header, row, strict=True)), ensure_ascii=False) + "\n")
    else:
        # Texts are always quoted in a .csv: Python before 3.13 leaves a carriage return bare.
        quoted = csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        for row in (header, *rows):
            if any(_NOT_IN[kind].search(str(value)) for value in row):
                unfit = "tab, line break or NUL" if kind == ".tsv" else "NUL"
                raise DataError(f"{path}: a text holds a {unfit}, which a {kind} cannot.\nWrite a .jsonl.")
            if kind == ".tsv":
                buffer.write("\t".join("" if value is None else str(value) for value in row) + "\n")
            else:
                quoted.writerow(row)
    data = buffer.getvalue().encode()
    files.write_bytes(path, gzip.compress(data, mtime=0) if path.name.endswith(".gz") else data)


def write_triplets(path: Path, table: TripletTable, *, indices: np.ndarray) -> None:
    """Write some rows of a table so that `load_triplets` reads them again; errors as `write_rows`.

    Where rows have other numbers of negatives than one, they stand in a list, `negatives`, in a .jsonl, and in
    `negative_1`, `negative_2` ... elsewhere.
    """
    few, most = table.negatives_per_row
    as_list = path.name.removesuffix(".gz").endswith(".jsonl")
    numbered = [f"negative_{number}" for number in range(1, most + 1)]
    names = ["negative"] if few == most == 1 else [] if not most else ["negatives"] if as_list else numbered
    header = [*table.text_columns[:2], *names, *["score"] * table.has_scores, *["instruction"] * table.has_instructions]
    write_rows(path, header=header, rows=_triplet_rows(table, indices, negative_columns=names))


def _triplet_rows(table: TripletTable, indices: np.ndarray, *, negative_columns: list[str]) -> Iterator[list[Value]]:
    for rows in table.chunks(indices):
        for row, (anchor, positive, *negatives) in enumerate(rows.texts):
            filled = [*negatives, *[None] * (len(negative_columns) - len(negatives))]
            yield [
                anchor,
                positive,
                *([negatives] if negative_columns == ["negatives"] else filled),
                *([float(rows.scores[row])] if rows.scores is not None else []),
                *([rows.instructions[row]] if table.has_instructions else []),
            ]
