"""Files -> rows, streamed, with every fault noted by file and line instead of stopping at the first.

Formats by suffix: .jsonl, .csv, .tsv, each also .gz, and .parquet. A .tsv has no quoting: a field holds no tab and no
line break and `"` is just a character. Text is strict UTF-8; a byte-order mark is dropped. Memory: one row (parquet:
one batch).
"""

import csv
import glob
import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from embedsmith.support.errors import MAX_FAULTS_SHOWN, DataError, list_faults

SUFFIXES = (".jsonl", ".csv", ".tsv", ".jsonl.gz", ".csv.gz", ".tsv.gz", ".parquet")
Row = dict[str, Any]
_BATCH_ROWS = 8192


class Faults:
    """Faults of a whole load, gathered; keeps the first `limit` texts and counts all."""

    def __init__(self, *, limit: int = MAX_FAULTS_SHOWN) -> None:
        self.limit = limit
        self.count = 0
        self.texts: list[str] = []

    def add(self, path: Path | str, line: int | None, what: str) -> None:
        """Note one fault at a 1-based line (None: the whole file)."""
        self.count += 1
        if len(self.texts) < self.limit:
            self.texts.append(f"{path}: {what}" if line is None else f"{path}, line {line}: {what}")

    def raise_if_any(self, *, what: str) -> None:
        """Raise one DataError naming every fault, up to a limit."""
        if self.count:
            raise DataError(
                list_faults(
                    f"{self.count} fault{'s' if self.count > 1 else ''} in the {what}:",
                    self.texts,
                    advice="Correct or remove these and start again; nothing was written.",
                    count=self.count,
                )
            )


def is_data_file(name: str) -> bool:
    """Whether a name ends like a format that can be read."""
    return name.endswith(SUFFIXES)


def expand_sources(sources: Sequence[str], *, faults: Faults) -> list[Path]:
    """Files that names and globs stand for, in the order given (a glob's matches sorted), each once."""
    paths: dict[Path, None] = {}
    for source in sources:
        matches = [source] if Path(source).exists() else sorted(glob.glob(source, recursive=True))  # noqa: PTH207 (patterns may be absolute)
        if not matches:
            faults.add(source, None, "no such file, and as a pattern it matches none")
        for match in matches:
            path = Path(match)
            if path.is_dir():
                faults.add(path, None, f"is a folder; name its files, for example {path}/*.jsonl")
            elif not is_data_file(path.name):
                faults.add(path, None, f"unknown format; known are {', '.join(SUFFIXES)}")
            else:
                paths[path] = None
    return list(paths)


def read_rows(path: Path, *, faults: Faults) -> Iterator[tuple[int, Row]]:
    """Yield (line, row) for every readable row; faults go to `faults`. For parquet, line is the row number.

    A row of .csv or .tsv maps column names to strings; of .jsonl and .parquet, to whatever stands there.
    """
    num_rows = 0
    num_faults = faults.count
    try:
        for line, row in _rows_of(path, faults):
            num_rows += 1
            yield line, row
    except OSError as error:
        faults.add(path, None, f"cannot be read: {error.strerror or error}")
    if num_rows == 0 and faults.count == num_faults:
        faults.add(path, None, "is empty")


def _rows_of(path: Path, faults: Faults) -> Iterator[tuple[int, Row]]:
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        return _parquet_rows(path, faults)
    lines = _lines(path, faults)
    if name.endswith(".jsonl"):
        return _json_rows(path, lines, faults)
    if name.endswith(".tsv"):
        return _tsv_rows(path, lines, faults)
    return _csv_rows(path, lines, faults)


def _lines(path: Path, faults: Faults) -> Iterator[tuple[int, str]]:
    """Numbered lines with their line end; undecodable lines are faults and left out."""
    number = 0
    with path.open("rb") as raw:
        file: Any = raw
        if path.suffix == ".gz":
            if raw.read(2) != b"\x1f\x8b":
                faults.add(path, None, "is named .gz but is not gzip")
                return
            raw.seek(0)
            file = io.BufferedReader(gzip.GzipFile(fileobj=raw))
        try:
            for number, data in enumerate(file, start=1):
                try:
                    line = data.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    faults.add(path, number, f"is not UTF-8 (byte 0x{data[error.start]:02x} at {error.start + 1})")
                    continue
                if "\0" in line:
                    faults.add(path, number, "holds a NUL byte")
                    continue
                yield number, line
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            faults.add(path, number + 1, f"the gzip data is damaged or cut short: {error}")


def _json_rows(path: Path, lines: Iterable[tuple[int, str]], faults: Faults) -> Iterator[tuple[int, Row]]:
    for number, line in lines:
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            faults.add(path, number, f"is not valid JSON: {error}")
            continue
        if isinstance(row, dict):
            yield number, row
        else:
            faults.add(path, number, f"must be a JSON object, but is a {type(row).__name__}")


def _tsv_rows(path: Path, lines: Iterable[tuple[int, str]], faults: Faults) -> Iterator[tuple[int, Row]]:
    header: list[str] | None = None
    for number, ended_line in lines:
        line = ended_line.removesuffix("\n").removesuffix("\r")
        if not line:
            continue
        fields = line.split("\t")
        if header is None:
            header = fields
        else:
            yield from _row(path, number, header, fields, faults)


def _csv_rows(path: Path, lines: Iterable[tuple[int, str]], faults: Faults) -> Iterator[tuple[int, Row]]:
    csv.field_size_limit(2**31 - 1)
    current = 0

    def texts() -> Iterator[str]:
        nonlocal current
        for number, line in lines:
            current = number
            yield line  # with its own line end: inside quotes it is part of the text

    reader = csv.reader(texts(), strict=True)
    header: list[str] | None = None
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            faults.add(path, current, f"is not valid CSV: {error}")
            continue
        if not fields:
            continue
        if header is None:
            header = fields
        else:
            yield from _row(path, current, header, fields, faults)


def _row(path: Path, line: int, header: list[str], fields: list[str], faults: Faults) -> Iterator[tuple[int, Row]]:
    if len(fields) == len(header):
        yield line, dict(zip(header, fields, strict=True))
    else:
        faults.add(path, line, f"has {len(fields)} fields where the header has {len(header)}")


def _parquet_rows(path: Path, faults: Faults) -> Iterator[tuple[int, Row]]:
    try:
        with pq.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=_BATCH_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        faults.add(path, None, f"is not a readable parquet file: {error}")
