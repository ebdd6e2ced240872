"""Files -> rows, streamed, with every fault noted by file and line instead of stopping at the first.

Formats by suffix: .jsonl, .csv, .tsv, .txt, each also .gz, and .parquet. A .txt holds a text a line: its column `text`.
Lines end in "\n" or "\r\n" and nothing else. The fields of a .csv may be parted by semicolons or tabs, too, as
spreadsheets write them where a comma stands in numbers: its header shows. A .tsv has no quoting: a field holds no tab
and no line break and `"` is just a character. Text is strict UTF-8; a byte-order mark is dropped. A name that stands
twice is a fault. Memory: one row (parquet: one batch).
"""

import csv
import glob
import gzip
import io
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

from embedsmith.data.faults import Faults, doubled_name
from embedsmith.data.parquet import ParquetRows, open_parquet, parquet_rows
from embedsmith.support import files
from embedsmith.support.digests import file_state
from embedsmith.support.json_text import DoubledNameError, parse_json

SUFFIXES = (".jsonl", ".csv", ".tsv", ".jsonl.gz", ".csv.gz", ".tsv.gz", ".parquet")
TEXT_SUFFIXES = (".txt", ".txt.gz")
Row = dict[str, Any]
FileRow = Mapping[str, Any]
"""A row as its file has it; of parquet, its values are read when they are asked for."""
CHANGED = "has changed while it was read; start again once nothing writes to it"
_KNOWN = f"known are {', '.join((*SUFFIXES, *TEXT_SUFFIXES))}"
_CURES = {
    ".json": "write an object a line into a .jsonl, for example with jq -c '.[]'",
    ".arrow": "write it as .parquet, for example with Dataset.to_parquet of datasets",
    ".xlsx": "save the sheet as .csv, in UTF-8",
    ".xls": "save the sheet as .csv, in UTF-8",
}
"""By suffix, what to do about a format that is not read."""
_GZIP = b"\x1f\x8b"
Item = TypeVar("Item")


def is_data_file(name: str) -> bool:
    """Whether a name ends like a format with columns."""
    return name.endswith(SUFFIXES)


def is_text_file(name: str) -> bool:
    """Whether a name ends like a file with a text a line."""
    return name.endswith(TEXT_SUFFIXES)


def expand_sources(sources: Sequence[str], *, faults: Faults, found: dict[Path, str] | None = None) -> list[Path]:
    """Files that names and globs stand for, in the order given (a glob's matches sorted).

    A file that is named twice is a fault, X.tsv beside X.tsv.gz too: its rows would count twice. Where one list comes
    of several calls, `found` is theirs, and empty at the first.
    """
    paths: list[Path] = []
    found = {} if found is None else found
    for source in sources:
        is_there = files.is_there(source)
        matches = [source] if is_there else sorted(glob.glob(source, recursive=True))  # noqa: PTH207 (patterns may be absolute)
        if not matches:
            faults.add(f"{source:.400}", None, "no such file, and as a pattern it matches none")
        for match in matches:
            path = Path(match)
            if path.is_dir():
                faults.add(path, None, f"is a folder; name its files, for example {path}/*.jsonl")
            elif not (is_data_file(path.name) or is_text_file(path.name)):
                faults.add(path, None, f"unknown format; {_CURES.get(path.suffix, _KNOWN)}")
            elif (place := unpacked(path)) in found:
                faults.add(path, None, f"is named twice: by {found[place]} and by {source}")
            else:
                found[place] = source if source == match else f"{source} ({match})"
                paths.append(path)
    return paths


def unpacked(path: Path) -> Path:
    """What makes a file the same as another: where it really lies, whether packed or not."""
    return Path(os.path.realpath(path).removesuffix(".gz"))  # not `resolve`, which raises where links go in a circle


def read_rows(path: Path, *, faults: Faults) -> Iterator[tuple[int, FileRow]]:
    """Yield (line, row) for every readable row; faults go to `faults`. For parquet, line is the row number.

    A row of .csv or .tsv maps column names to strings; of .jsonl and .parquet, to whatever stands there.

    Raises:
        DataError: see `parquet_rows`.
    """
    yield from _watch(path, lambda: _rows_of(path, faults), faults=faults)


def read_columns(path: Path, *, faults: Faults) -> ParquetRows | None:
    """The rows of a file that holds columns, many of them at once; None of any other, or where it has a fault."""
    if not path.name.endswith(".parquet"):
        return None
    found = list(_watch(path, lambda: filter(None, [open_parquet(path, faults=faults)]), faults=faults))
    return found[0] if found else None


def _watch(path: Path, read: Callable[[], Iterable[Item]], *, faults: Faults) -> Iterator[Item]:
    """What is read of a file; a fault is noted where it cannot be, or where that is nothing."""
    num_items = 0
    num_faults = faults.count
    try:
        files.check_can_end(path)
        state = file_state(path) if path.is_file() else None  # a pipe changes as it is written to
        for item in read():
            num_items += 1
            yield item
        if state and file_state(path) != state:
            faults.add(path, None, CHANGED)
    except OSError as error:
        faults.add(path, None, f"cannot be read: {error.strerror or error}")
    if num_items == 0 and faults.count == num_faults:
        faults.add(path, None, "is empty")


def _rows_of(path: Path, faults: Faults) -> Iterator[tuple[int, FileRow]]:
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        return parquet_rows(path, faults=faults)
    lines = _lines(path, faults)
    if name.endswith(".txt"):
        return ((number, {"text": line.rstrip("\r\n")}) for number, line in lines if line.strip())
    if name.endswith(".jsonl"):
        return _json_rows(path, lines, faults)
    if name.endswith(".tsv"):
        return _tsv_rows(path, lines, faults)
    return _csv_rows(path, lines, faults)


def _lines(path: Path, faults: Faults) -> Iterator[tuple[int, str]]:
    """Numbered lines with their line end, "\\n" alone or "\\r\\n"; those that are no text are faults and left out."""
    number, cure = 0, "; if it comes from Windows, convert it: iconv -f WINDOWS-1252 -t UTF-8"
    with path.open("rb") as raw:
        file: Any = raw
        if path.suffix == ".gz":
            magic = raw.peek(2)[:2]
            if magic and magic != _GZIP:
                faults.add(path, None, "is named .gz but is not gzip")
                return
            file = io.BufferedReader(gzip.GzipFile(fileobj=raw))
        try:
            if foreign := _why_no_text(file.peek(4)):
                faults.add(path, None, foreign)
                return
            for number, data in enumerate(file, start=1):
                try:
                    line = data.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    where = f"byte 0x{data[error.start]:02x} at {error.start + 1}"
                    faults.add(path, number, f"is not UTF-8 ({where}){cure}")
                    cure = ""  # once a file
                    continue
                if "\0" in line:
                    faults.add(path, number, "holds a NUL byte")
                    continue
                yield number, line
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            faults.add(path, number + 1, f"the gzip data is damaged or cut short: {error}")


def _why_no_text(start: bytes) -> str | None:
    """What a file is that begins so, where it is no UTF-8 text."""
    if start.startswith((b"\xff\xfe", b"\xfe\xff")) or start[:1] == b"\0" or start[1:2] == b"\0":
        return "is UTF-16 or UTF-32, not UTF-8; convert it, for example with iconv -f UTF-16 -t UTF-8"
    if start.startswith(_GZIP):
        return "is gzip, but is not named .gz"
    return "is parquet, but is not named .parquet" if start.startswith(b"PAR1") else None


def _json_rows(path: Path, lines: Iterable[tuple[int, str]], faults: Faults) -> Iterator[tuple[int, Row]]:
    for number, line in lines:
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except DoubledNameError as error:
            faults.add(path, number, str(error))
        except ValueError as error:
            faults.add(path, number, f"is not valid JSON: {error}")
        else:
            if isinstance(row, dict):
                yield number, row
            else:
                faults.add(path, number, f"must be a JSON object, but is a {type(row).__name__}")


def _tsv_rows(path: Path, lines: Iterable[tuple[int, str]], faults: Faults) -> Iterator[tuple[int, Row]]:
    records = ((number, line.removesuffix("\n").removesuffix("\r")) for number, line in lines)
    return _table_rows(path, ((number, line.split("\t")) for number, line in records if line), faults)


def _csv_rows(path: Path, lines: Iterable[tuple[int, str]], faults: Faults) -> Iterator[tuple[int, Row]]:
    return _table_rows(path, _csv_records(path, lines, faults), faults)


def _csv_records(path: Path, lines: Iterable[tuple[int, str]], faults: Faults) -> Iterator[tuple[int, list[str]]]:
    """(first line, fields) of each row; a row's quoted fields may go over several lines."""
    csv.field_size_limit(2**31 - 1)
    lines = iter(lines)
    head = list(islice(lines, 1))
    first = 0

    def texts() -> Iterator[str]:
        nonlocal first
        for number, line in chain(head, lines):
            first = first or number
            yield line  # with its own line end: inside quotes it is part of the text

    reader = csv.reader(texts(), strict=True, delimiter=_delimiter(head[0][1] if head else ""))
    while True:
        first = 0
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            why = "a carriage return ends no line" if "new-line character" in str(error) else str(error)
            faults.add(path, first, f"is not valid CSV: {why}")
            continue
        if fields:
            yield first, fields


def _delimiter(header: str) -> str:
    """What parts the fields, by the header's first line: a comma, if one stands there outside quotes."""
    unquoted = re.sub(r'"[^"]*"', "", header)
    return next((mark for mark in ",;\t" if mark in unquoted), ",")


def _table_rows(
    path: Path, records: Iterable[tuple[int, list[str]]], faults: Faults
) -> Iterator[tuple[int, dict[str, str]]]:
    """The first record names the columns of the others; of columns without a name the last one stays."""
    header: list[str] | None = None
    for line, fields in records:
        if header is None:
            header = fields
            wrong = doubled_name(header)
            if any("\r" in name for name in header):
                wrong = "a carriage return stands in the header; lines end in \\n or \\r\\n"
            if wrong:
                faults.add(path, line, wrong)
                return
        elif len(fields) == len(header):
            yield line, dict(zip(header, fields, strict=True))
        else:
            faults.add(path, line, f"has {len(fields)} fields where the header has {len(header)}")
