"""Rows -> a file that `readers` reads again: .jsonl, .csv or .tsv, each maybe .gz. Memory: the whole file."""

import csv
import gzip
import io
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from embedsmith.support import files
from embedsmith.support.errors import DataError

_OUTPUTS = (".tsv", ".csv", ".jsonl", ".tsv.gz", ".csv.gz", ".jsonl.gz")
_NOT_IN = {".tsv": re.compile(r"[\t\r\n\0]"), ".csv": re.compile(r"\0")}
"""Characters that a format has no way to write, or that no reader takes."""


def check_output(path: Path) -> None:
    """Raise DataError where a file cannot be written under this name: unknown format, or taken."""
    if not path.name.endswith(_OUTPUTS):
        raise DataError(f"{path}: unknown format to write; known are {', '.join(_OUTPUTS)}.")
    if path.exists():
        raise DataError(f"{path} exists already.\nRemove it or choose another name.")


def write_rows(path: Path, *, header: Sequence[str], rows: Iterable[Sequence[str | float | None]]) -> None:
    """Write rows under their column names, atomically; the suffix says how. None: null, or an empty field.

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
