"""Rows -> a file that `readers` reads again: .jsonl, .csv or .tsv, each maybe .gz. Memory: the whole file."""

import csv
import gzip
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedsmith.data.table import TripletTable
from embedsmith.support import files
from embedsmith.support.errors import DataError

_OUTPUTS = (".tsv", ".csv", ".jsonl", ".tsv.gz", ".csv.gz", ".jsonl.gz")
Value = str | float | None | list[str] | list[float]
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


_SCORE_NAMES = re.compile(r"negative(s|_\d+|)")


@dataclass(frozen=True)
class RowNegatives:
    """Negatives of a row in the place of its own, and maybe similarities: of its positive, and of each negative."""

    texts: list[str]
    positive_score: float | None = None
    scores: list[float] | None = None


def check_texts(path: Path, texts: Iterable[str]) -> None:
    """Make sure, before work that ends in `path`, that its format can hold these texts; errors as `write_rows`."""
    kind = Path(path.name.removesuffix(".gz")).suffix
    if kind in _NOT_IN and any(map(_NOT_IN[kind].search, texts)):
        raise _unfit(path, kind)


def _unfit(path: Path, kind: str) -> DataError:
    held = "tab, line break or NUL" if kind == ".tsv" else "NUL"
    return DataError(f"{path}: a text holds a {held}, which a {kind} cannot.\nWrite a .jsonl.")


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
                raise _unfit(path, kind)
            if kind == ".tsv":
                buffer.write("\t".join("" if value is None else str(value) for value in row) + "\n")
            else:
                quoted.writerow(row)
    data = buffer.getvalue().encode()
    files.write_bytes(path, gzip.compress(data, mtime=0) if path.name.endswith(".gz") else data)


def write_triplets(
    path: Path, table: TripletTable, *, indices: np.ndarray, negatives: Sequence[RowNegatives] | None = None
) -> None:
    """Write some rows of a table so that `load_triplets` reads them again; errors as `write_rows`.

    Where rows have other numbers of negatives than one, they stand in a list, `negatives`, in a .jsonl, and in
    `negative_1`, `negative_2` ... elsewhere. Similarities stand in `positive_score` and `negative_scores`, or
    `negative_score_1` ..., which training does not use.

    Args:
        path: of the new file.
        table: the rows.
        indices: of those to write.
        negatives: of each of them, in the place of its own; None: its own.
    """
    few, most = table.negatives_per_row
    if negatives is not None:
        few, most = (bound(len(one.texts) for one in negatives) for bound in (min, max))
    as_list = path.name.removesuffix(".gz").endswith(".jsonl")
    numbered = [f"negative_{number}" for number in range(1, most + 1)]
    names = ["negative"] if few == most == 1 else [] if not most else ["negatives"] if as_list else numbered
    has_scores = negatives is not None and negatives[0].scores is not None
    score_names = ["positive_score", *(_SCORE_NAMES.sub(r"negative_score\1", name) for name in names)] * has_scores
    header = [
        *table.text_columns[:2],
        *names,
        *["score"] * table.has_scores,
        *["instruction"] * table.has_instructions,
        *score_names,
    ]
    write_rows(path, header=header, rows=_triplet_rows(table, indices, negatives=negatives, names=names))


def _triplet_rows(
    table: TripletTable, indices: np.ndarray, *, negatives: Sequence[RowNegatives] | None, names: list[str]
) -> Iterator[list[Value]]:
    others = iter(negatives or ())
    for rows in table.chunks(indices):
        for row, texts in enumerate(rows.texts):
            given = RowNegatives([*texts[2:]]) if negatives is None else next(others)
            yield [
                *texts[:2],
                *_in_columns(given.texts, names),
                *([float(rows.scores[row])] if rows.scores is not None else []),
                *([rows.instructions[row]] if table.has_instructions else []),
                *([given.positive_score, *_in_columns(given.scores, names)] if given.scores is not None else []),
            ]


def _in_columns(values: list[str] | list[float], names: Sequence[str]) -> list[Value]:
    """As one list, or one value a column, of which the last ones may be empty."""
    if names == ["negatives"]:
        return [values]
    return [*values, *[None] * (len(names) - len(values))]
