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
_BREAKS = re.compile(r"[\t\r\n]")


def check_output(path: Path) -> None:
    """Raise DataError where a file cannot be written under this name: unknown format, or taken."""
    if not path.name.endswith(_OUTPUTS):
        raise DataError(f"{path}: unknown format to write; known are {', '.join(_OUTPUTS)}.")
    if path.exists():
        raise DataError(f"{path} exists already.\nRemove it or choose another name.")


def write_rows(path: Path, *, header: Sequence[str], rows: Iterable[Sequence[str | float | None]]) -> None:
    """Write rows under their column names, atomically; the suffix says how. None: null, or an empty field.

    Raises:
        DataError: as `check_output`; or a text holds a tab or line break, which a .tsv cannot.
    """
    check_output(path)
    buffer = io.StringIO()
    kind = path.name.removesuffix(".gz")
    if kind.endswith(".jsonl"):
        for row in rows:
            buffer.write(json.dumps(dict(zip(header, row, strict=True)), ensure_ascii=False) + "\n")
    elif kind.endswith(".tsv"):
        for row in (header, *rows):
            fields = ["" if value is None else str(value) for value in row]
            if any(_BREAKS.search(field) for field in fields):
                raise DataError(f"{path}: a text holds a tab or line break, which a .tsv cannot.\nWrite a .jsonl.")
            buffer.write("\t".join(fields) + "\n")
    else:
        csv.writer(buffer, lineterminator="\n").writerows([header, *rows])
    data = buffer.getvalue().encode()
    files.write_bytes(path, gzip.compress(data, mtime=0) if path.name.endswith(".gz") else data)
